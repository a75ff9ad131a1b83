#pragma once

#include <string>
#include <vector>

#include "config/literals.h"
#include "config/pipeline_config.h"
#include "pipeline/seal.h"

namespace relay::coordinator {

/// The seal of a pipeline: those secrets of its configuration that its subject template or its
/// headers hold. No other one can be in a message, so no dead letter can ask for it.
Seal make_seal(const config::PipelineConfig& config, const std::string& subject_template,
               std::vector<config::SecretPart> sink_secrets);

}  // namespace relay::coordinator
