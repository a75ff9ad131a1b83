#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/message.h"
#include "core/record.h"

namespace relay::envelope {

/// How records become messages.
struct EncoderOptions {
  std::string id_prefix;  ///< begins each id: the pipeline's name unless configured otherwise
  bool row_mode = false;  ///< one message a row instead of one a delta
  std::int64_t delta_max_rows = 1000;
  std::string wire_format = "native";
  std::string subject_template = "{stream_table}";
  std::optional<std::string> key_template;
  std::map<std::string, std::string> headers;  ///< values may be templates
  std::optional<std::string> filter;
  std::vector<std::string> columns;  ///< empty: all
  bool skip_full_refresh = false;
  bool event_envelope = false;
  /// Makes a value that goes into a subject legal there (pipeline/registry.h); null: as it is.
  void (*escape)(std::string& out, std::string_view value) = nullptr;
};

/// Turns records into messages: slices raw JSON and splices it into the envelope, never parsing a
/// payload into a tree, so that numbers of any precision pass through byte for byte. Deterministic:
/// the same record gives the same messages with the same ids, however batches are cut. One thread
/// at a time. What cannot be sent becomes a message with `refused` set, so that it is set aside and
/// its neighbours go on.
class Encoder {
 public:
  /// Misconfigured: a template or the filter does not compile; the message says where and why.
  static Result<std::unique_ptr<Encoder>> make(EncoderOptions options);
  ~Encoder();

  /// Messages of all records, in order. The batch keeps the records' memory.
  MessageBatch encode(RecordBatch records);

 private:
  struct Impl;

 public:
  explicit Encoder(std::unique_ptr<Impl> impl);  // for `make`: nobody else knows Impl

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::envelope
