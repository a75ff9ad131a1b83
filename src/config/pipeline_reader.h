#pragma once

#include "config/literals.h"
#include "config/pipeline_config.h"

namespace relay::config {

/// Fills `config` from an object: types, options, problems, fingerprint. Its name, place, enabled
/// and, if known, direction are set before.
void read_pipeline(const Catalogue& catalogue, PipelineConfig& config, const Node& object,
                   Written written);

}  // namespace relay::config
