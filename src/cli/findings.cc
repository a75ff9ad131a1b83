#include "cli/findings.h"

#include <fmt/core.h>

#include <algorithm>

#include "cli/commands.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::cli {

namespace {

std::string counted(int count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

/// The text on one line, without control characters that a terminal would obey.
std::string printable(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return text;
}

}  // namespace

void Findings::good(std::string_view pipeline, std::string_view text) {
  add(pipeline, text, "", "ok     ");
}

void Findings::bad(std::string_view pipeline, const Error& error) {
  ++problems_;
  configuration_ = configuration_ || error.error_class == ErrorClass::misconfigured;
  add(pipeline, error.message, error.remedy, "PROBLEM");
}

void Findings::warn(std::string_view pipeline, const Error& warning) {
  ++warnings_;
  add(pipeline, warning.message, warning.remedy, "WARNING");
}

void Findings::append(const Findings& more) {
  problems_ += more.problems_;
  warnings_ += more.warnings_;
  configuration_ = configuration_ || more.configuration_;
  text_ += more.text_;
  if (!json_.empty() && !more.json_.empty()) json_ += ',';
  json_ += more.json_;
}

int Findings::exit_code() const {
  if (problems_ == 0) return kOk;
  return configuration_ ? kInvalidConfiguration : kFailed;
}

void Findings::print(bool as_json) const {
  if (as_json) {
    fmt::print("{{\"ok\":{},\"problems\":{},\"warnings\":{},\"findings\":[{}]}}\n", problems_ == 0,
               problems_, warnings_, json_);
    return;
  }
  const std::string said = problems_ > 0   ? counted(problems_, "problem")
                           : warnings_ > 0 ? "no problem"
                                           : "all good";
  fmt::print("{}{}{}\n", text_, said,
             warnings_ > 0 ? fmt::format(", {}", counted(warnings_, "warning")) : "");
}

void Findings::add(std::string_view pipeline, std::string_view found, std::string_view remedy,
                   std::string_view kind) {
  const std::string text = printable(secrets::masked(found));
  const std::string mended_by = printable(secrets::masked(remedy));
  const std::string where = pipeline.empty() ? "" : printable(fmt::format("{}: ", pipeline));
  text_ += fmt::format("{} {}{}\n", kind, where, text);
  if (!mended_by.empty()) text_ += fmt::format("        remedy: {}\n", mended_by);
  if (!json_.empty()) json_ += ',';
  json_ += fmt::format(R"({{"ok":{},"warning":{},"pipeline":{},"message":{},"remedy":{}}})",
                       kind != "PROBLEM", kind == "WARNING", json_string(pipeline),
                       json_string(text), json_string(mended_by));
}

}  // namespace relay::cli
