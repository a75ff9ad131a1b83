#include "admin/change.h"

#include <charconv>

namespace relay::admin {

namespace {

using config::Field;
using config::FieldType;
using config::Node;

constexpr Field kResume[] = {{.name = "accept_loss",
                              .type = FieldType::boolean,
                              .default_text = "false",
                              .meaning = "resume although rows after its position are gone"}};

constexpr Field kReplay[] = {
    {.name = "from", .type = FieldType::integer, .meaning = "first id", .required = true, .min = 1},
    {.name = "to", .type = FieldType::integer, .meaning = "last id", .min = 1}};

constexpr Field kRetryAll[] = {
    {.name = "pipeline", .meaning = "whose dead letters are sent again", .required = true}};

constexpr ChangeRoute kRoutes[] = {
    {"/api/pipelines/*/pause", "select pgtrickle.pause_relay($1)", {}, ""},
    {"/api/pipelines/*/resume", "select pgtrickle.resume_relay($1, $2::boolean)", kResume, ""},
    {"/api/pipelines/*/replay", "select pgtrickle.replay_relay($1, $2::bigint, $3::bigint)",
     kReplay, "replay"},
    {"/api/dlq/retry", "select pgtrickle.relay_dlq_retry_all($1)", kRetryAll, "count"},
    {"/api/dlq/*/retry", "select pgtrickle.relay_dlq_retry($1::bigint)", {}, ""},
    {"/api/dlq/*/discard", "select pgtrickle.relay_dlq_discard($1::bigint)", {}, ""},
};

/// The part of the path at the star of `route`; null if the path does not match. Empty for a
/// pattern without a star.
std::optional<std::string_view> match(std::string_view route, std::string_view path) {
  const auto star = route.find('*');
  if (star == std::string_view::npos) {
    return route == path ? std::optional<std::string_view>("") : std::nullopt;
  }
  const std::string_view before = route.substr(0, star);
  const std::string_view behind = route.substr(star + 1);
  if (path.size() <= before.size() + behind.size() || !path.starts_with(before) ||
      !path.ends_with(behind)) {
    return std::nullopt;
  }
  return path.substr(before.size(), path.size() - before.size() - behind.size());
}

Result<Node::Object> arguments_of(const HttpRequest& request) {
  Node::Object object;
  if (!request.body.empty()) {
    const auto body = config::parse_json(request.body, "body");
    if (!body) return fail(body.error());
    if (!body->object()) {
      return fail(config::problem("body", "wrong_type", "it must be a JSON object"));
    }
    object = *body->object();
  }
  for (const auto& [name, value] : request.query) {
    Node node(value, "query");
    node.set_origin(Node::Origin::outside);
    object.emplace_back(name, std::move(node));
  }
  return object;
}

postgres::Param param_of(const config::Node& value) {
  if (value.is_null()) return std::nullopt;
  return value.text() ? *value.text() : value.to_json();
}

Result<Change> read_change(const ChangeRoute& route, std::string_view star,
                           const HttpRequest& request) {
  const auto arguments = arguments_of(request);
  if (!arguments) return fail(arguments.error());
  const auto checked = config::check(*arguments, route.arguments, request.path);
  if (!checked.problems.empty()) return fail(checked.problems.front());
  Change change{&route, {}};
  if (!star.empty()) change.params.emplace_back(std::string(star));
  for (const Field& field : route.arguments) {
    change.params.push_back(param_of(checked.values.value(field)));
  }
  return change;
}

bool is_number(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Result<std::optional<Change>> change_of(const HttpRequest& request) {
  for (const ChangeRoute& route : kRoutes) {
    const auto star = match(route.path, request.path);
    if (!star) continue;
    if (route.path.starts_with("/api/dlq/*") && !is_number(*star)) continue;
    auto change = read_change(route, *star, request);
    if (!change) return fail(change.error());
    return std::optional(std::move(*change));
  }
  return std::optional<Change>();
}

}  // namespace relay::admin
