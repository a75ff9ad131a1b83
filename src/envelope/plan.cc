#include "envelope/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/percent.h"
#include "core/text.h"

namespace relay::envelope {
namespace {

constexpr std::array<std::string_view, 5> kReservedHeaders = {
    "pgtrickle-id", "pgtrickle-op", "pgtrickle-stream-table", "pgtrickle-outbox-id",
    "pgtrickle-full-refresh"};

void note(Plan& plan, const Template& used) {
  plan.uses_key = plan.uses_key || used.uses(Variable::key);
  plan.has_columns = plan.has_columns || used.has_columns();
  plan.varies_by_row = plan.varies_by_row || used.varies_by_row();
  plan.varies_by_op = plan.varies_by_op || used.varies_by_op();
}

Result<void> add_headers(Plan& plan) {
  for (const auto& [name, value] : plan.options.headers) {
    if (name.empty() || is_reserved_header(name)) {
      return fail(
          ErrorClass::misconfigured, "headers", fmt::format("headers: \"{}\" cannot be set", name),
          "pgtrickle-id, -op, -stream-table, -outbox-id and -full-refresh are the relay's own");
    }
    if (plan.options.header_rules.refuses(name)) {
      const auto settable = plan.options.header_rules.settable;
      return fail(ErrorClass::misconfigured, "headers",
                  fmt::format("headers: \"{}\" belongs to the protocol of the sink's broker", name),
                  settable.empty() ? "leave it out"
                                   : fmt::format("leave it out; of these headers, {} can be set",
                                                 fmt::join(settable, " and ")));
    }
    Result<Template> compiled = Template::compile(value, fmt::format("headers, {}", name));
    if (!compiled) return fail(compiled.error());
    note(plan, *compiled);
    plan.headers.push_back({name, std::move(*compiled)});
  }
  return {};
}

std::string default_source(std::string_view pipeline) {
  std::string source = "/pgtrickle/";
  append_percent_encoded(source, pipeline);
  return source;
}

// Whether all characters are allowed in a URI reference (RFC 3986).
bool is_uri_text(std::string_view text) {
  constexpr std::string_view kOthers = ":/?#[]@!$&'()*+,;=%";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return is_unreserved(c) || kOthers.find(c) != std::string_view::npos;
  });
}

Result<void> check_format(Plan& plan) {
  const EncoderOptions& given = plan.options;
  if (given.tombstones && !plan.row_mode) {
    return fail(ErrorClass::misconfigured, "tombstones",
                "tombstones end the key of a row, but messages carry deltas",
                "set message to row, or leave tombstones out");
  }
  const bool binary = plan.format == &kCloudEventsBinaryFormat;
  if (binary && given.cloudevents_binding.prefix.empty()) {
    return fail(ErrorClass::misconfigured, "cloudevents_mode",
                "cloudevents_mode is binary, but this sink has no headers for the attributes",
                "set cloudevents_mode to structured");
  }
  const std::string& source = given.cloudevents_source;
  if (!source.empty() && !is_uri_text(source)) {
    return fail(ErrorClass::misconfigured, "cloudevents_source",
                fmt::format("cloudevents_source \"{}\" is no URI reference", source),
                "write a URI or a path, blanks and other such characters as %XX");
  }
  plan.event_source = source.empty() ? default_source(given.pipeline) : source;
  return {};
}

}  // namespace

bool is_reserved_header(std::string_view name) {
  return std::any_of(
      kReservedHeaders.begin(), kReservedHeaders.end(),
      [&](std::string_view reserved) { return equal_ignoring_case(name, reserved); });
}

bool HeaderRules::refuses(std::string_view name) const {
  return drops(name) && std::none_of(settable.begin(), settable.end(), [&](std::string_view one) {
           return equal_ignoring_case(one, name);
         });
}

Result<Plan> Plan::make(EncoderOptions options) {
  Plan plan;
  plan.options = std::move(options);
  const EncoderOptions& given = plan.options;
  plan.format = find_format(given.wire_format, given.cloudevents_binary);
  if (plan.format == nullptr) {
    return fail(ErrorClass::misconfigured, "wire_format",
                fmt::format("wire_format \"{}\" is not available", given.wire_format),
                fmt::format("available in this version: {}", format_names()));
  }
  plan.row_mode = given.row_mode || plan.format->delta == nullptr;
  if (auto checked = check_format(plan); !checked) return fail(checked.error());

  Result<Template> subject = Template::compile(given.subject_template, "subject_template");
  if (!subject) return fail(subject.error());
  plan.subject = std::move(*subject);
  note(plan, plan.subject);
  if (given.key_template) {
    Result<Template> key = Template::compile(*given.key_template, "key_template");
    if (!key) return fail(key.error());
    plan.key = std::move(*key);
    note(plan, *plan.key);
  }
  if (auto added = add_headers(plan); !added) return fail(added.error());
  if (given.filter) {
    Result<Filter> filter = Filter::compile(*given.filter);
    if (!filter) return fail(filter.error());
    plan.filter = std::move(*filter);
  }
  return plan;
}

}  // namespace relay::envelope
