#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/message.h"
#include "envelope/encoder.h"
#include "envelope/json_reader.h"
#include "envelope/output.h"

namespace relay::envelope {

/// The headers of messages: those that the configuration sets, then those of the record (a JSON
/// object; what is not a text in it is passed as JSON, NULL is left out) that the configuration did
/// not set. The relay's own names, and those of the broker's protocol, are never taken from a
/// record.
class HeaderBuilder {
 public:
  /// Reads a record's headers; they stay until the next call. False: not a JSON object.
  bool read(std::string_view json, const HeaderRules& rules, JsonReader& reader, Output& output);
  /// Together with what the templates of `plan` rendered to, in their order.
  std::span<const Header> build(const Plan& plan, std::span<const std::string_view> rendered,
                                Output& output);

 private:
  Rows row_;
  std::string text_;
  std::vector<Header> of_record_;
  std::vector<Header> headers_;
};

}  // namespace relay::envelope
