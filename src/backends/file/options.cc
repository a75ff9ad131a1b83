#include "backends/file/options.h"

#include <array>

namespace relay::file {

namespace {

using config::Field;
using config::FieldType;

constexpr Field kFormat{.name = "format",
                        .type = FieldType::choice,
                        .default_text = "jsonl",
                        .meaning =
                            "jsonl: one message a line; json_pretty: indented; csv: id, "
                            "subject, key, op, created_at and body",
                        .choices = "jsonl,json_pretty,csv",
                        .plain = true};
constexpr Field kRotateBytes{.name = "rotate_bytes",
                             .type = FieldType::bytes,
                             .default_text = "0",
                             .meaning =
                                 "begin a new file before this one grows beyond that; 0: "
                                 "never by size",
                             .plain = true};
constexpr Field kRotateInterval{.name = "rotate_interval",
                                .type = FieldType::duration,
                                .default_text = "0",
                                .meaning =
                                    "begin a new file when this one is that old and a "
                                    "message comes; 0: never by age",
                                .plain = true};
constexpr Field kCompressRotated{.name = "compress_rotated",
                                 .type = FieldType::boolean,
                                 .default_text = "false",
                                 .meaning = "gzip a file once it was rotated",
                                 .plain = true};
constexpr Field kFsync{.name = "fsync",
                       .type = FieldType::boolean,
                       .default_text = "true",
                       .meaning =
                           "a message counts as delivered only when the disk has it "
                           "(regular files only)",
                       .plain = true};

constexpr Field path_field(bool required, std::string_view meaning) {
  return {.name = "path",
          .type = FieldType::text,
          .meaning = meaning,
          .required = required,
          .host = config::HostUse::file,
          .plain = true};
}

constexpr std::array kStdoutFields = {
    kFormat,          path_field(false, "write to this file instead of standard output"),
    kRotateBytes,     kRotateInterval,
    kCompressRotated, kFsync};
constexpr std::array kFileFields = {
    kFormat,          path_field(true, "the file to append to; it is made if absent"),
    kRotateBytes,     kRotateInterval,
    kCompressRotated, kFsync};

Format parse_format(const std::string& text) {
  if (text == "csv") return Format::csv;
  if (text == "json_pretty") return Format::json_pretty;
  return Format::jsonl;
}

}  // namespace

config::FieldTable stdout_fields() {
  return kStdoutFields;
}

config::FieldTable file_fields() {
  return kFileFields;
}

Result<Options> parse_options(const config::Values& values) {
  Options options;
  options.format = parse_format(values.text("format"));
  options.path = values.text("path");
  options.rotate_bytes = values.bytes("rotate_bytes");
  options.rotate_interval = values.duration("rotate_interval");
  options.compress_rotated = values.boolean("compress_rotated");
  options.fsync = values.boolean("fsync");
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
  return options;
}

}  // namespace relay::file
