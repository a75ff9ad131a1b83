#include <fmt/core.h>
#include <simdjson.h>

#include "config/tree.h"

namespace relay::config {
namespace {

namespace od = simdjson::ondemand;

std::string member_place(std::string_view place, std::string_view path) {
  if (path.empty()) return std::string(place);
  return place.empty() ? fmt::format("key {}", path) : fmt::format("{}, key {}", place, path);
}

// Reads each value once and in full, so that simdjson's on-demand parser has checked all of it.
class JsonReader {
 public:
  explicit JsonReader(std::string_view place) : place_(place) {}

  // Value is a value or a whole document; both have the same getters.
  template <class Value>
  Result<Node> read(Value&& value, const std::string& path) {
    od::json_type type{};
    if (const auto error = value.type().get(type)) return refuse(error, path);
    switch (type) {
      case od::json_type::object:
        return read_object(value, path);
      case od::json_type::array:
        return read_array(value, path);
      case od::json_type::number:
        return read_number(value, path);
      case od::json_type::string: {
        std::string_view text;
        if (const auto error = value.get_string().get(text)) return refuse(error, path);
        return Node(std::string(text), member_place(place_, path));
      }
      case od::json_type::boolean: {
        bool boolean = false;
        if (const auto error = value.get_bool().get(boolean)) return refuse(error, path);
        return Node(boolean, member_place(place_, path));
      }
      case od::json_type::null:
        break;
    }
    bool null = false;
    if (const auto error = value.is_null().get(null)) return refuse(error, path);
    if (!null) return refuse(simdjson::N_ATOM_ERROR, path);
    Node node;
    node.set_place(member_place(place_, path));
    return node;
  }

  tl::unexpected<Error> refuse(simdjson::error_code error, const std::string& path) const {
    return fail(problem(member_place(place_, path), "not_json",
                        fmt::format("not valid JSON: {}", simdjson::error_message(error))));
  }

 private:
  template <class Value>
  Result<Node> read_object(Value&& value, const std::string& path) {
    od::object members;
    if (const auto error = value.get_object().get(members)) return refuse(error, path);
    Node::Object object;
    for (auto member : members) {
      std::string_view key;
      od::value member_value;
      if (const auto error = member.unescaped_key().get(key)) return refuse(error, path);
      const std::string name(key);
      if (const auto error = member.value().get(member_value)) return refuse(error, path);
      const std::string member_path = path.empty() ? name : fmt::format("{}.{}", path, name);
      if (find_member(object, name)) {
        return fail(problem(member_place(place_, member_path), "conflict", "given twice"));
      }
      auto node = read(member_value, member_path);
      if (!node) return node;
      object.emplace_back(name, std::move(*node));
    }
    return Node(std::move(object), member_place(place_, path));
  }

  template <class Value>
  Result<Node> read_array(Value&& value, const std::string& path) {
    od::array elements;
    if (const auto error = value.get_array().get(elements)) return refuse(error, path);
    Node::Array array;
    for (auto element : elements) {
      od::value element_value;
      if (const auto error = element.get(element_value)) return refuse(error, path);
      auto node = read(element_value, fmt::format("{}[{}]", path, array.size()));
      if (!node) return node;
      array.push_back(std::move(*node));
    }
    return Node(std::move(array), member_place(place_, path));
  }

  template <class Value>
  Result<Node> read_number(Value&& value, const std::string& path) {
    std::int64_t integer = 0;
    if (!value.get_int64().get(integer)) return Node(integer, member_place(place_, path));
    double number = 0;  // has a fraction, or fits no int64
    if (const auto error = value.get_double().get(number)) return refuse(error, path);
    return Node(number, member_place(place_, path));
  }

  std::string_view place_;
};

}  // namespace

Result<Node> parse_json(std::string_view text, std::string_view place) {
  od::parser parser;
  const simdjson::padded_string padded(text);
  od::document document;
  JsonReader reader(place);
  if (const auto error = parser.iterate(padded).get(document)) return reader.refuse(error, "");
  auto node = reader.read(document, "");
  const char* rest = nullptr;
  if (node && !document.current_location().get(rest)) {
    return reader.refuse(simdjson::TRAILING_CONTENT, "");
  }
  return node;
}

}  // namespace relay::config
