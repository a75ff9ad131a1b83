#pragma once

#include <string>
#include <vector>

#include "config/literals.h"
#include "config/pipeline_config.h"
#include "pipeline/seal.h"

namespace relay::coordinator {

/// The seal of a pipeline: the secrets of its configuration that its subject template or its
/// headers hold. No other secret can be in a message or in a dead letter.
Seal make_seal(const config::PipelineConfig& config, const std::string& subject_template,
               std::vector<config::SecretPart> sink_secrets);

}  // namespace relay::coordinator
