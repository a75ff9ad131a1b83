#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "config/host_access.h"
#include "core/error.h"

namespace relay::config {

/// A configuration value and where it came from, for every file format. Keys keep their order.
class Node {
 public:
  using Array = std::vector<Node>;
  using Object = std::vector<std::pair<std::string, Node>>;

  /// Where a value's text comes from. A text from outside of a typed file may be a number or a
  /// boolean; a text that replaced a reference may be a secret and is never shown.
  enum class Origin {
    written,    ///< in a file or the catalog
    reference,  ///< put in for a reference, in whole or in part
    outside,    ///< a flag, an environment variable, or YAML without quotes
  };

  Node() = default;
  Node(bool value, std::string place) : value_(value), place_(std::move(place)) {}
  Node(std::int64_t value, std::string place) : value_(value), place_(std::move(place)) {}
  Node(double value, std::string place) : value_(value), place_(std::move(place)) {}
  Node(std::string value, std::string place) : value_(std::move(value)), place_(std::move(place)) {}
  Node(Array value, std::string place) : value_(std::move(value)), place_(std::move(place)) {}
  Node(Object value, std::string place) : value_(std::move(value)), place_(std::move(place)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&value_); }
  const double* number() const { return std::get_if<double>(&value_); }
  const std::string* text() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }
  Object* object() { return std::get_if<Object>(&value_); }
  Array* array() { return std::get_if<Array>(&value_); }

  /// The member of an object, or null.
  const Node* find(std::string_view key) const;

  /// "relay.toml:12:8", or "pipeline orders-to-nats, key sink.url".
  const std::string& place() const { return place_; }
  void set_place(std::string place) { place_ = std::move(place); }

  Origin origin() const { return origin_; }
  void set_origin(Origin origin) { origin_ = origin; }

  /// One line of JSON, for comparing two configurations: an object's keys are sorted. Holds secrets
  /// when resolved: never log it.
  std::string to_json() const;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
  std::string place_;
  Origin origin_ = Origin::written;
};

/// The member of an object, or null.
const Node* find_member(const Node::Object& object, std::string_view key);

/// Reads JSON (a row of the SQL catalog). `place` begins each node's place. Numbers that fit no
/// int64 become double. An error names the place.
Result<Node> parse_json(std::string_view text, std::string_view place);

/// Reads TOML. An error names file, line and column; so does each node.
Result<Node> parse_toml(std::string_view text, std::string_view file);

/// Reads YAML: one document, whose root is an object or nothing. What stands without quotes is a
/// text from outside, which may be a number or a boolean. An alias is a copy of what it names;
/// values stand at most 64 deep in others. An error names file, line and column; so does each node.
Result<Node> parse_yaml(std::string_view text, std::string_view file);

/// Puts in what `${env:NAME}` and `${file:/path}` (and, with `plain_names`, `${NAME}` and
/// `${NAME:-default}`) refer to; `$${` stands for `${` itself. A file's last line end is not part
/// of its value. An error names the reference and its place, never a value; it is the first one.
Result<Node> resolve_references(const Node& node, bool plain_names);
/// The same, with every problem. A value that cannot be resolved becomes null.
Node resolve_references(const Node& node, bool plain_names, std::vector<Error>& problems);

/// A reference that was put in: "env:NAME", and what it stands for.
struct ResolvedReference {
  std::string name;
  std::string value;
};
/// The same with a check of what the author may refer to: `access` is null for the operator, who
/// may use any reference; other authors may use those that it allows. `found` receives each
/// reference that was put in. The value of every reference is remembered as a secret.
struct ReferenceRules {
  bool plain_names = false;
  const HostAccess* access = nullptr;
};
Node resolve_references(const Node& node, const ReferenceRules& rules, std::vector<Error>& problems,
                        std::vector<ResolvedReference>& found);

/// A misconfigured error of this room: "<place>: <what>".
Error problem(std::string_view place, std::string_view code, std::string_view what,
              std::string remedy = {});

}  // namespace relay::config
