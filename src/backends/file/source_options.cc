#include "backends/file/source_options.h"

#include <fmt/core.h>

#include <array>

#include "connector/field_mapping.h"

namespace relay::file {

namespace {

using config::FieldType;
using config::fills;
using config::fills_nothing;
using config::Option;

constexpr config::Field kFormat{.name = "format",
                                .type = FieldType::choice,
                                .default_text = "jsonl",
                                .meaning = "jsonl: each line is an event",
                                .choices = "jsonl",
                                .plain = true};
constexpr Option<SourceOptions> kFileOptions[] = {
    {{.name = "path",
      .meaning = "the file that is read",
      .required = true,
      .host = config::HostUse::file,
      .plain = true},
     fills<&SourceOptions::path>},
    {kFormat, fills_nothing},  // there is one format
    {{.name = "follow",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "wait for more at the end, and go on in the new file when this one is "
                 "rotated; false: the end of the file is the end",
      .plain = true},
     fills<&SourceOptions::follow>},
    {{.name = "position_file",
      .meaning = "where the position is kept over restarts; default "
                 "<path>.<pipeline>.position",
      .host = config::HostUse::file},
     fills<&SourceOptions::position_file>},
};
constexpr auto kFileSourceFields = with_mapping_fields(kFileOptions);
constexpr auto kStdinSourceFields = with_mapping_fields(std::array{kFormat});

}  // namespace

config::FieldTable file_source_fields() {
  return kFileSourceFields;
}

config::FieldTable stdin_source_fields() {
  return kStdinSourceFields;
}

Result<SourceOptions> parse_source_options(const config::Values& values,
                                           const std::string& pipeline) {
  auto options = config::filled<SourceOptions>(kFileOptions, values);
  if (!options) return options;
  if (!values.has("position_file")) {
    options->position_file = fmt::format("{}.{}.position", options->path, pipeline);
  }
  options->pipeline = pipeline;
  return options;
}

}  // namespace relay::file
