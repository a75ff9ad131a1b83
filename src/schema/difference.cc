#include "schema/difference.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "schema/remedy.h"

namespace relay::schema {

namespace {

constexpr std::string_view kGrants = "grants ";

/// In the order in which differences are shown.
enum class Rank { basic, missing, changed, added };

/// Where the container of an object is, if it has one: its table or view, or else its schema.
const Object* container_in(const Manifest& manifest, const Object& object) {
  const auto find = [&](std::string_view kind, std::string_view name) -> const Object* {
    const auto found = manifest.find(fmt::format("{} {}", kind, name));
    return found == manifest.end() ? nullptr : &found->second;
  };
  if (object.has("view")) return find("view", object.whole());
  if (object.has("table")) {
    const Object* table = find("table", object.whole());
    return table ? table : find("view", object.whole());
  }
  if (object.kind == "role" || object.kind == "schema") return nullptr;
  return find("schema", std::string_view(object.name).substr(0, object.name.find('.')));
}

/// Without it `init` cannot make what else is missing. (A view needs the columns of its tables.)
bool is_basic(const Object& object) {
  return object.kind == "schema" || object.kind == "table" || object.kind == "role";
}

/// It is another function, under the same name and types: what else differs tells nothing more.
bool is_another_function(const Object& needed, const Object& found, std::string_view attribute) {
  return needed.kind == "function" &&
         (attribute == "kind" || attribute == "arguments" || attribute == "result") &&
         needed.attribute(attribute) != found.attribute(attribute);
}

std::string shown(std::string_view value) {
  constexpr std::size_t kLongest = 200;
  if (value.empty()) return "none";
  if (value.size() <= kLongest) return std::string(value);
  return std::string(value.substr(0, kLongest)) + "...";
}

/// How a difference of this attribute is told, where its name and values are not words.
std::string told(const Object& object, std::string_view attribute, std::string_view value) {
  if (attribute == "persistence" && value == "u") {
    return "it is UNLOGGED: a crash of the server empties it";
  }
  if (attribute == "triggers") return "its triggers are disabled: it is not enforced";
  if (attribute == "invalid") return "its index is invalid";
  if (attribute == "not null" && value == "not valid") return "its NOT NULL is not validated";
  if (attribute == "definition" && is_not_valid(object)) {
    return "it is NOT VALID: rows from before may violate it";
  }
  if (attribute == "replica identity") {
    return "its replica identity is NOTHING: a publication makes its updates fail";
  }
  if (attribute == "autovacuum") return "autovacuum is switched off: it grows without bounds";
  if (attribute == "children") {
    return fmt::format("rows of {} show in it, which inherits from it", value);
  }
  if (attribute == "parents") return fmt::format("its rows show in {}, its parent", value);
  if (attribute == "dropped with") return fmt::format("it is dropped with extension {}", value);
  return "";
}

/// What differs there keeps nothing from working, as far as can be told.
bool is_harmless(std::string_view attribute) {
  constexpr std::array kHarmless{"replica identity", "autovacuum", "parents", "dropped with",
                                 "evaluates"};
  return std::ranges::find(kHarmless, attribute) != kHarmless.end();
}

std::string_view in_words(std::string_view attribute) {
  return attribute == "set" ? "the SET clause" : attribute;
}

class Comparison {
 public:
  Comparison(const Manifest& needed, const Manifest& found) : needed_(needed), found_(found) {}

  std::vector<Difference> run() {
    for (const auto& [title, object] : needed_) look_for(object);
    for (const auto& [title, object] : found_) {
      if (!needed_.contains(title) && !object.has("extension")) look_at_added(object);
    }
    std::ranges::stable_sort(ranked_, {}, &Ranked::first);
    std::vector<Difference> differences;
    for (auto& [rank, difference] : ranked_) differences.push_back(std::move(difference));
    return differences;
  }

 private:
  using Ranked = std::pair<std::pair<bool, Rank>, Difference>;

  void problem(Rank rank, std::string message, std::string remedy) {
    ranked_.push_back({{false, rank}, {true, std::move(message), std::move(remedy)}});
  }
  void warning(Rank rank, std::string message, std::string remedy) {
    ranked_.push_back({{true, rank}, {false, std::move(message), std::move(remedy)}});
  }

  void look_for(const Object& needed) {
    const auto found = found_.find(needed.title());
    if (found == found_.end()) {
      if (const Object* container = container_in(needed_, needed)) {
        const auto there = found_.find(container->title());
        if (there == found_.end()) return;  // the container is what is missing
        if (!needed.whole().empty() && there->second.has("extension")) return;
      }
      if (is_name_of_extension(needed)) return;
      problem(is_basic(needed) ? Rank::basic : Rank::missing,
              fmt::format("{} is missing", needed.title()), remedy_for_missing(needed));
    } else if (!found->second.has("extension")) {
      compare(needed, found->second);
    }
  }

  /// An extension has something else of that name, which `init` leaves as it is.
  bool is_name_of_extension(const Object& needed) const {
    const auto plain = [](const Object& object) {
      return std::string_view(object.name).substr(0, object.name.find('('));
    };
    const bool is_function = needed.kind == "function";
    const bool is_relation = needed.kind == "table" || needed.kind == "view";
    return std::ranges::any_of(found_, [&](const auto& found) {
      const Object& there = found.second;
      if (!there.has("extension") || plain(there) != plain(needed)) return false;
      return (is_function && there.kind == "function") ||
             (is_relation && (there.kind == "table" || there.kind == "view"));
    });
  }

  void compare(const Object& needed, const Object& found) {
    std::set<std::string_view> names;
    for (const auto& [name, value] : needed.attributes) names.insert(name);
    for (const auto& [name, value] : found.attributes) names.insert(name);
    for (const std::string_view name : names) {
      if (!is_another_function(needed, found, name)) continue;
      changed(needed, found, name);
      return;
    }
    for (const std::string_view name : names) {
      if (needed.attribute(name) == found.attribute(name)) continue;
      if (name.starts_with(kGrants)) {
        compare_grants(needed, found, name);
      } else if (name == "owner lacks") {
        problem(Rank::changed,
                fmt::format("role {} lacks {} on its {}", found.attribute("owner"),
                            found.attribute(name), found.title()),
                remedy_for_revoked(found, found.attribute("owner"), found.attribute(name)));
      } else if (needed.kind == "role") {
        compare_role(needed, found, name);
      } else {
        changed(needed, found, name);
      }
    }
  }

  void compare_grants(const Object& needed, const Object& found, std::string_view name) {
    const std::string_view role = name.substr(kGrants.size());
    const std::string lacks = without(needed.attribute(name), found.attribute(name));
    const std::string added = without(found.attribute(name), needed.attribute(name));
    const std::string who = role == "PUBLIC" ? "PUBLIC" : fmt::format("role {}", role);
    if (!lacks.empty()) {
      problem(Rank::changed, fmt::format("{} lacks {} on {}", who, lacks, needed.title()),
              remedy_for_revoked(needed, role, lacks));
    }
    if (!added.empty()) {
      warning(Rank::changed,
              fmt::format("{} has {} on {}, which an installation does not give", who, added,
                          needed.title()),
              remedy_for_granted(needed, role, added));
    }
  }

  /// More attributes and memberships than needed break nothing, but they give rights away.
  void compare_role(const Object& needed, const Object& found, std::string_view name) {
    if (name == "members") {
      warning(Rank::changed,
              fmt::format("{} can be assumed by {}, which can do what each caller of its functions "
                          "can",
                          needed.title(), found.attribute(name)),
              remedy_for_changed(needed, found, name));
      return;
    }
    const bool lacks = name == "member of"
                           ? !without(needed.attribute(name), found.attribute(name)).empty()
                           : found.attribute(name).find("NOINHERIT") != std::string_view::npos;
    const std::string message =
        fmt::format("{}: {} is {}, not {}", needed.title(), name, shown(found.attribute(name)),
                    shown(needed.attribute(name)));
    const std::string remedy = remedy_for_changed(needed, found, name);
    if (lacks) {
      problem(Rank::changed, message, remedy);
    } else {
      warning(Rank::changed, message, remedy);
    }
  }

  void changed(const Object& needed, const Object& found, std::string_view name) {
    const bool is_digest = name == "body" || (name == "definition" && needed.kind == "view");
    std::string words = told(found, name, found.attribute(name));
    if (words.empty()) {
      words = is_digest ? fmt::format("the {} differs", name)
                        : fmt::format("{} is {}, not {}", in_words(name),
                                      shown(found.attribute(name)), shown(needed.attribute(name)));
    }
    const std::string message = fmt::format("{}: {}", needed.title(), words);
    const std::string remedy = remedy_for_changed(needed, found, name);
    if (is_harmless(name)) {
      warning(Rank::changed, message, remedy);
    } else {
      problem(Rank::changed, message, remedy);
    }
  }

  void look_at_added(const Object& found) {
    if (found.kind == "function") {
      warning(Rank::added,
              fmt::format("unexpected {} of role {}: left by an earlier version, or made by hand",
                          found.title(), found.attribute("owner")),
              remedy_for_added(found));
    } else if (found.kind == "column") {
      const bool has_value = found.has("default") || found.has("identity") ||
                             found.has("generated") || !found.has("not null");
      if (has_value && found.has("evaluates")) {
        warning(Rank::added,
                fmt::format("unexpected {}: statements of the relay run its default, type or "
                            "expression, which is not PostgreSQL's own",
                            found.title()),
                remedy_for_added(found));
      }
      if (has_value) return;
      problem(Rank::added,
              fmt::format("unexpected {}: it is NOT NULL and has no default", found.title()),
              remedy_for_added(found));
    } else if (found.kind == "trigger" || found.kind == "rule" || found.kind == "policy" ||
               found.kind == "constraint" ||
               (found.kind == "index" && (found.has("unique") || found.has("evaluates")))) {
      warning(Rank::added,
              fmt::format("unexpected {} on {}: it can make statements of the relay fail",
                          found.title(), found.attribute("table")),
              remedy_for_added(found));
    }
  }

  const Manifest& needed_;
  const Manifest& found_;
  std::vector<Ranked> ranked_;
};

}  // namespace

std::vector<Difference> differences(const Manifest& needed, const Manifest& found) {
  const auto is_schema = [](const auto& entry) { return entry.second.kind == "schema"; };
  if (std::ranges::none_of(found, is_schema)) {
    return {{true, "the database side is not installed", std::string(kInit)}};
  }
  return Comparison(needed, found).run();
}

}  // namespace relay::schema
