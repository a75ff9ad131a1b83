#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/message.h"
#include "envelope/format.h"
#include "envelope/output.h"
#include "envelope/plan.h"

namespace relay::envelope {

/// The headers of a message together with those by which its format describes it. What the
/// configuration sets goes before the format's, and that before what the record brought.
class FormatHeaders {
 public:
  explicit FormatHeaders(const Plan& plan) : plan_(plan) {}

  std::span<const Header> build(const MessageFacts& message, std::string_view content_type,
                                Output& output);

 private:
  void add(std::string_view name, std::string_view value, Output& output);
  bool is_configured(std::string_view name) const;

  const Plan& plan_;
  std::string text_;
  std::vector<Header> headers_;
};

}  // namespace relay::envelope
