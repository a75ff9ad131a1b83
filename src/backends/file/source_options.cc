#include "backends/file/source_options.h"

#include <fmt/core.h>

#include <array>

#include "connector/field_mapping.h"

namespace relay::file {

namespace {

using config::Field;
using config::FieldType;

constexpr Field kFormat{.name = "format",
                        .type = FieldType::choice,
                        .default_text = "jsonl",
                        .meaning = "jsonl: each line is an event",
                        .choices = "jsonl",
                        .plain = true};
constexpr std::array kFileFields = {
    Field{.name = "path",
          .meaning = "the file that is read",
          .required = true,
          .host = config::HostUse::file,
          .plain = true},
    kFormat,
    Field{.name = "follow",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "wait for more at the end, and go on in the new file when this one is "
                     "rotated; false: the end of the file is the end",
          .plain = true},
    Field{.name = "position_file",
          .meaning = "where the position is kept over restarts; default "
                     "<path>.<pipeline>.position",
          .host = config::HostUse::file},
};
constexpr auto kFileSourceFields = with_mapping_fields(kFileFields);
constexpr auto kStdinSourceFields = with_mapping_fields(std::array{kFormat});

}  // namespace

config::FieldTable file_source_fields() {
  return kFileSourceFields;
}

config::FieldTable stdin_source_fields() {
  return kStdinSourceFields;
}

SourceOptions parse_source_options(const config::Values& values, const std::string& pipeline) {
  SourceOptions options;
  options.path = values.text("path");
  options.follow = values.boolean("follow");
  options.position_file = values.has("position_file")
                              ? values.text("position_file")
                              : fmt::format("{}.{}.position", options.path, pipeline);
  options.pipeline = pipeline;
  return options;
}

}  // namespace relay::file
