#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace relay::schema {

/// An object of the database side, and what is known of it.
struct Object {
  std::string kind;  ///< table, column, function and so on
  std::string name;  ///< quoted, with its schema; of a part of a table, with the table
  std::map<std::string, std::string, std::less<>> attributes;

  /// Empty if it has none of that name.
  std::string_view attribute(std::string_view key) const;
  bool has(std::string_view key) const { return attributes.find(key) != attributes.end(); }
  /// The table or view that it is a part of, such as a column; empty: of none.
  std::string_view whole() const { return attribute(has("view") ? "view" : "table"); }
  /// The name of such a part without that of the table or view.
  std::string_view part() const;
  std::string title() const { return kind + ' ' + name; }
};

/// What a database side consists of, by the titles of the objects.
using Manifest = std::map<std::string, Object, std::less<>>;

/// Adds the object of a line of sql/manifest.txt: the title and, after a tab each, the attributes.
void add_line(Manifest& manifest, std::string_view line);

/// Of two values that are lists with commas: the entries of the one that the other one lacks.
std::string without(std::string_view list, std::string_view other);

/// What this program needs. Parsed once; any thread.
const Manifest& needed_manifest();

}  // namespace relay::schema
