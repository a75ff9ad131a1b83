#include "envelope/plan.h"

#include <algorithm>
#include <array>
#include <utility>

namespace relay::envelope {
namespace {

constexpr std::array<std::string_view, 5> kReservedHeaders = {
    "pgtrickle-id", "pgtrickle-op", "pgtrickle-stream-table", "pgtrickle-outbox-id",
    "pgtrickle-full-refresh"};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

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
    Result<Template> compiled = Template::compile(value, fmt::format("headers, {}", name));
    if (!compiled) return fail(compiled.error());
    note(plan, *compiled);
    plan.headers.push_back({name, std::move(*compiled)});
  }
  return {};
}

}  // namespace

bool same_header(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

bool is_reserved_header(std::string_view name) {
  return std::any_of(kReservedHeaders.begin(), kReservedHeaders.end(),
                     [&](std::string_view reserved) { return same_header(name, reserved); });
}

Result<Plan> Plan::make(EncoderOptions options) {
  Plan plan;
  plan.options = std::move(options);
  const EncoderOptions& given = plan.options;
  plan.format = find_format(given.wire_format);
  if (plan.format == nullptr) {
    return fail(ErrorClass::misconfigured, "wire_format",
                fmt::format("wire_format \"{}\" is not available", given.wire_format),
                fmt::format("available in this version: {}", format_names()));
  }
  plan.row_mode = given.row_mode || plan.format->delta == nullptr;

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
