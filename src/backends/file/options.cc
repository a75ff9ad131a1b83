#include "backends/file/options.h"

#include "config/option_table.h"

namespace relay::file {

namespace {

using config::FieldType;
using config::fills;
using config::fills_choice;
using config::Option;

constexpr config::Choice<Format> kFormats[] = {
    {"jsonl", Format::jsonl}, {"json_pretty", Format::json_pretty}, {"csv", Format::csv}};

constexpr Option<Options> kOptions[] = {
    {{.name = "format",
      .type = FieldType::choice,
      .default_text = "jsonl",
      .meaning =
          "jsonl: one message a line; json_pretty: indented; csv: id, subject, key, op, created_at "
          "and body",
      .choices = "jsonl,json_pretty,csv",
      .plain = true},
     fills_choice<kFormats, &Options::format>},
    {{.name = "path",
      .meaning = "write to this file instead of standard output",
      .host = config::HostUse::file,
      .plain = true},
     fills<&Options::path>},
    {{.name = "rotate_bytes",
      .type = FieldType::bytes,
      .default_text = "0",
      .meaning = "begin a new file before this one grows beyond that; 0: never by size",
      .plain = true},
     fills<&Options::rotate_bytes>},
    {{.name = "rotate_interval",
      .type = FieldType::duration,
      .default_text = "0",
      .meaning = "begin a new file when this one is that old and a message comes; 0: never by age",
      .plain = true},
     fills<&Options::rotate_interval>},
    {{.name = "compress_rotated",
      .type = FieldType::boolean,
      .default_text = "false",
      .meaning = "gzip a file once it was rotated",
      .plain = true},
     fills<&Options::compress_rotated>},
    {{.name = "fsync",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "a message counts as delivered only when the disk has it (regular files only)",
      .plain = true},
     fills<&Options::fsync>},
};

constexpr auto kStdoutFields = config::fields_of(kOptions);

/// The sink `file` has the same options, and needs the path.
constexpr auto kFileFields = [] {
  auto fields = kStdoutFields;
  for (config::Field& field : fields) {
    if (field.name != "path") continue;
    field.meaning = "the file to append to; it is made if absent";
    field.required = true;
  }
  return fields;
}();

}  // namespace

config::FieldTable stdout_fields() {
  return kStdoutFields;
}

config::FieldTable file_fields() {
  return kFileFields;
}

Result<Options> parse_options(const config::Values& values) {
  auto filled = config::filled<Options>(kOptions, values);
  if (!filled) return fail(filled.error());
  const Options& options = *filled;
  const bool rotates = options.rotate_bytes > 0 || options.rotate_interval.count() > 0;
  if (options.path.empty() && rotates) {
    return fail(ErrorClass::misconfigured, "rotation_without_file",
                "standard output cannot be rotated", "set path, or leave out rotate_*");
  }
  if (options.compress_rotated && !rotates) {
    return fail(ErrorClass::misconfigured, "compression_without_rotation",
                "compress_rotated is set, but nothing is ever rotated",
                "set rotate_bytes or rotate_interval");
  }
  return filled;
}

}  // namespace relay::file
