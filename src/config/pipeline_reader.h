#pragma once

#include "config/pipeline_config.h"

namespace relay::config {

/// What a configuration is written in decides which keys and references it knows.
enum class Written { in_catalog, in_file };

/// Fills `config` from an object: types, options, problems, fingerprint. Its name, place, enabled
/// and, if known, direction are set before.
void read_pipeline(PipelineConfig& config, const Node& object, Written written);

}  // namespace relay::config
