#include <fmt/core.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <sstream>
#include <unordered_map>

#include "config/tree.h"
#include "core/characters.h"
#include "core/text.h"

namespace relay::config {
namespace {

/// Aliases can make a small file a huge tree. Each copy counts.
constexpr std::size_t kMostNodes = 100'000;
/// The functions that read a tree recurse into it.
constexpr std::size_t kDeepest = 64;

struct NotRead {
  Error error;
};

[[noreturn]] void refuse(std::string_view place, std::string_view what) {
  throw NotRead{problem(place, "not_yaml", what, "Correct the file; nothing of it was taken.")};
}

struct Extent {
  std::size_t nodes = 1;
  std::size_t depth = 0;  ///< of objects and arrays in one another
};

Extent extent_of(const Node& node) {
  Extent whole;
  const auto add = [&whole](const Node& part) {
    const Extent extent = extent_of(part);
    whole.nodes += extent.nodes;
    whole.depth = std::max(whole.depth, extent.depth + 1);
  };
  if (const Node::Array* array = node.array()) {
    whole.depth = 1;
    for (const Node& element : *array) add(element);
  } else if (const Node::Object* object = node.object()) {
    whole.depth = 1;
    for (const auto& [key, value] : *object) add(value);
  }
  return whole;
}

/// Builds the tree from the parser's events. The parser's own tree has no end where an alias names
/// what it stands in.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(std::string_view file) : file_(file) {}

  std::string place_of(const YAML::Mark& at) const {
    return at.is_null() ? fmt::format("{}:1:1", file_)
                        : fmt::format("{}:{}:{}", file_, at.line + 1, at.column + 1);
  }

  /// The document; an empty object if nothing stands in it.
  Node take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) refuse(place_of(mark), "there are several documents in one file");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (open_.empty()) return;
    refuse_key(mark);
    Node nothing;
    nothing.set_place(open_.back().key ? open_.back().key->place : place_of(mark));
    add(std::move(nothing), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node text(value, place_of(mark));
    if (tag == "?") text.set_origin(Node::Origin::outside);  // without quotes
    add(std::move(text), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchored_.find(anchor);
    if (found == anchored_.end()) refuse(place_of(mark), "this alias stands in its own value");
    if (!found->second.text()) refuse_key(mark);
    const Extent extent = extent_of(found->second);
    check_depth(extent.depth, mark);
    count(extent.nodes, place_of(mark));
    add(found->second, YAML::NullAnchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(Node(Node::Array(), place_of(mark)), mark, anchor);
  }
  void OnSequenceEnd() override { end(); }

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(Node(Node::Object(), place_of(mark)), mark, anchor);
  }
  void OnMapEnd() override { end(); }

 private:
  struct Key {
    std::string name;
    std::string place;
  };
  /// An object or an array whose end has not come.
  struct Open {
    Node node;
    YAML::anchor_t anchor;
    std::optional<Key> key;  ///< in an object: the value of this key is next
  };

  bool key_is_next() const {
    return !open_.empty() && open_.back().node.object() && !open_.back().key;
  }
  void refuse_key(const YAML::Mark& mark) const {
    if (key_is_next()) refuse(place_of(mark), "a key must be a text");
  }
  void check_depth(std::size_t more, const YAML::Mark& mark) const {
    if (open_.size() + more > kDeepest) {
      refuse(place_of(mark), fmt::format("values stand more than {} deep in others", kDeepest));
    }
  }
  void count(std::size_t nodes, std::string_view place) {
    nodes_ += nodes;
    if (nodes_ > kMostNodes)
      refuse(place, fmt::format("there are more than {} values", kMostNodes));
  }

  void begin(Node node, const YAML::Mark& mark, YAML::anchor_t anchor) {
    refuse_key(mark);
    check_depth(1, mark);
    open_.push_back({std::move(node), anchor, std::nullopt});
  }

  void end() {
    Open whole = std::move(open_.back());
    open_.pop_back();
    add(std::move(whole.node), whole.anchor);
  }

  /// A value that is whole, or the text of a key.
  void add(Node node, YAML::anchor_t anchor) {
    count(1, node.place());
    if (anchor != YAML::NullAnchor) {
      count(extent_of(node).nodes, node.place());
      anchored_[anchor] = node;
    }
    if (open_.empty()) {
      if (!node.object()) {
        refuse(node.place(), "the file must hold keys and values, such as \"stream:\"");
      }
      root_ = std::move(node);
      return;
    }
    Open& into = open_.back();
    if (Node::Array* array = into.node.array()) {
      array->push_back(std::move(node));
    } else if (into.key) {
      into.node.object()->emplace_back(std::move(into.key->name), std::move(node));
      into.key.reset();
    } else {
      if (find_member(*into.node.object(), *node.text())) {
        refuse(node.place(), fmt::format("the key {} stands here twice",
                                         json_string(first_characters(*node.text(), 64))));
      }
      into.key = Key{*node.text(), node.place()};
    }
  }

  const std::string_view file_;
  int documents_ = 0;
  std::size_t nodes_ = 0;
  std::vector<Open> open_;
  std::unordered_map<YAML::anchor_t, Node> anchored_;
  Node root_ = Node(Node::Object(), fmt::format("{}:1:1", file_));
};

}  // namespace

Result<Node> parse_yaml(std::string_view text, std::string_view file) {
  Builder builder(file);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    // On some inputs the parser reports documents without end: never ask it for a third.
    if (parser.HandleNextDocument(builder)) parser.HandleNextDocument(builder);
    return builder.take();
  } catch (const NotRead& refused) {
    return fail(refused.error);
  } catch (const YAML::Exception& error) {
    return fail(problem(builder.place_of(error.mark), "not_yaml", error.msg,
                        "Correct the file; nothing of it was taken."));
  }
}

}  // namespace relay::config
