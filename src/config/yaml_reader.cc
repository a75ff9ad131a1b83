#include <fmt/core.h>
#include <yaml-cpp/yaml.h>

#include <cstddef>

#include "config/tree.h"
#include "core/text.h"

namespace relay::config {
namespace {

/// Aliases can make a small file a huge tree.
constexpr std::size_t kMostNodes = 100'000;

struct NotRead {
  Error error;
};

class Reader {
 public:
  explicit Reader(std::string_view file) : file_(file) {}

  std::string place_of(const YAML::Mark& at) const {
    return at.is_null() ? fmt::format("{}:1:1", file_)
                        : fmt::format("{}:{}:{}", file_, at.line + 1, at.column + 1);
  }

  Node read(const YAML::Node& node) {
    const std::string place = place_of(node.Mark());
    if (++nodes_ > kMostNodes) refuse(place, fmt::format("there are more than {} values", nodes_));
    switch (node.Type()) {
      case YAML::NodeType::Map:
        return Node(read_map(node), place);
      case YAML::NodeType::Sequence: {
        Node::Array array;
        for (const YAML::Node& element : node) array.push_back(read(element));
        return Node(std::move(array), place);
      }
      case YAML::NodeType::Scalar: {
        Node text(node.Scalar(), place);
        if (node.Tag() == "?") text.set_origin(Node::Origin::outside);  // without quotes
        return text;
      }
      default: {
        Node nothing;
        nothing.set_place(place);
        return nothing;
      }
    }
  }

  [[noreturn]] static void refuse(std::string_view place, std::string_view what) {
    throw NotRead{problem(place, "not_yaml", what, "Correct the file; nothing of it was taken.")};
  }

 private:
  Node::Object read_map(const YAML::Node& map) {
    Node::Object object;
    for (const auto& member : map) {
      const std::string place = place_of(member.first.Mark());
      if (!member.first.IsScalar()) refuse(place, "a key must be a text");
      const std::string& key = member.first.Scalar();
      if (find_member(object, key)) {
        refuse(place, fmt::format("the key {} stands here twice", json_string(key.substr(0, 64))));
      }
      Node value = read(member.second);
      if (value.is_null()) value.set_place(place);
      object.emplace_back(key, std::move(value));
    }
    return object;
  }

  const std::string_view file_;
  std::size_t nodes_ = 0;
};

}  // namespace

Result<Node> parse_yaml(std::string_view text, std::string_view file) {
  Reader reader(file);
  try {
    const auto documents = YAML::LoadAll(std::string(text));
    const std::string begin = fmt::format("{}:1:1", file);
    if (documents.empty() || documents.front().IsNull()) return Node(Node::Object(), begin);
    if (documents.size() > 1) reader.refuse(begin, "there are several documents in one file");
    if (!documents.front().IsMap()) {
      reader.refuse(reader.place_of(documents.front().Mark()),
                    "the file must hold keys and values, such as \"stream:\"");
    }
    return reader.read(documents.front());
  } catch (const NotRead& refused) {
    return fail(refused.error);
  } catch (const YAML::Exception& error) {
    return fail(problem(reader.place_of(error.mark), "not_yaml", error.msg,
                        "Correct the file; nothing of it was taken."));
  }
}

}  // namespace relay::config
