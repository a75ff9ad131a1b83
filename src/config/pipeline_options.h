#pragma once

#include <string_view>
#include <vector>

#include "config/pipeline_config.h"

namespace relay::config {

/// Checks the options that any pipeline has. `object` is as the user wrote it, in their own or
/// their nested form (retry = {min, max}).
PipelineOptions read_pipeline_options(Node::Object object, std::string_view place,
                                      std::vector<Error>& problems);

/// True for a name of pipeline_fields(), and for `retry`, under which some may stand.
bool is_pipeline_option(std::string_view key);

/// True for a name of retention_fields().
bool is_retention_option(std::string_view key);

/// Puts `node` into `object` as `key`. A member of that name with another value is a problem.
void merge_member(Node::Object& object, std::string_view key, Node node,
                  std::vector<Error>& problems);

}  // namespace relay::config
