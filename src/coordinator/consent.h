#pragma once

#include <vector>

#include "config/pipeline_config.h"

namespace relay::coordinator {

/// Of a pipeline in SQL, what it takes from the relay's host without the operator's consent: files,
/// credentials in files, properties that load libraries or run commands. Each as a problem with the
/// flag that gives the consent. Of the operator's own pipelines nothing.
std::vector<Error> problems_of_consent(const config::PipelineConfig& config,
                                       const config::Values& values, config::FieldTable table);

}  // namespace relay::coordinator
