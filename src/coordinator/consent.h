#pragma once

#include <vector>

#include "config/pipeline_config.h"

namespace relay::coordinator {

/// What a pipeline in SQL takes from the relay's host without the operator's consent: files,
/// credentials in files, properties that load libraries or run commands. Each is a problem that
/// names the flag that gives the consent. The operator's own pipelines have none.
std::vector<Error> problems_of_consent(const config::PipelineConfig& config,
                                       const config::Values& values, config::FieldTable table);

}  // namespace relay::coordinator
