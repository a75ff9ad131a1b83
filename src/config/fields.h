#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/tree.h"
#include "core/error.h"

namespace relay::config {

enum class FieldType {
  text,
  integer,
  number,
  boolean,
  duration,  ///< "500ms", "10s", "5m", "1h", or a number of seconds
  bytes,     ///< "8MiB", "256KB", or a number of bytes
  choice,    ///< one of `choices`
  list,      ///< an array of text; a single text is a list of one
  map,       ///< an object of text; numbers and booleans in it are taken as text
  start,     ///< "earliest", "latest", "snapshot" or an id, which may be a number; a text
};

/// The name of a type, as the catalogue of options has it: "text", "integer", ...
std::string_view name_of(FieldType type);

/// What an option takes from the relay's host, for which a pipeline of the SQL catalog needs the
/// operator's consent (`HostAccess`).
enum class HostUse {
  none,
  file,         ///< the path of a file that is read or written: `allow_file`
  secret_file,  ///< the path of a file that holds a secret: `allow_secret`
  properties,   ///< a map: members that name files, commands or libraries are refused
};

/// The ends of a pipeline in which one of its options may stand as well.
enum class AlsoIn {
  none,
  sink,
  outbox_source,  ///< a source that reads an outbox, here or elsewhere
};

/// One option: everything that validation (here and in SQL), `options --json` and the documentation
/// say of it.
struct Field {
  std::string_view name;
  FieldType type = FieldType::text;
  std::string_view default_text = {};  ///< as one would write it; empty: none
  std::string_view meaning = {};
  bool required = false;
  bool secret = false;
  std::string_view choices = {};  ///< "memory,file"
  std::string_view aliases = {};  ///< other spellings, comma-separated
  double min = 0;                 ///< for integer, number, duration (seconds) and bytes
  double max = 1e18;
  HostUse host = HostUse::none;
  std::string_view nested = {};  ///< "retry.min": where it may stand in the nested form
  std::string_view one_of = {};  ///< exactly one option of those with this mark must be given
  AlsoIn also_in = AlsoIn::none;
  bool plain = false;         ///< an end's: the flat form has it without the type's prefix
  bool no_reference = false;  ///< the database reads it as well: in SQL it cannot be a reference
};

using FieldTable = std::span<const Field>;

/// The field of this very name, not of an alias; null where there is none.
const Field* find_field(FieldTable table, std::string_view name);

/// The same by any of its names.
const Field* find_by_any_name(FieldTable table, std::string_view name);

/// All names of an option, its own first.
std::vector<std::string_view> names_of(const Field& field);

/// The error of a key that names no option of the table. `prefix` is what the key and the options
/// have in front in the flat form; plain ones have none.
Error unknown_option(std::string_view key, const Node& node, FieldTable table,
                     std::string_view prefix = {});

/// The parts of `nested`, "retry" and "min"; empty where it has no nested form.
std::string_view nested_group(const Field& field);
std::string_view nested_member(const Field& field);

/// Options that were checked against a table. Structs are filled from them (`option_table.h`); what
/// is read by name is read of a name that the table has (assert).
class Values {
 public:
  bool has(std::string_view name) const;  ///< set by the user, not by default
  /// The value or else the default, in the form that `convert` gives it; null: there is neither.
  Node value(const Field& field) const;
  /// The value of a text or choice, or else its default.
  std::string text(std::string_view name) const;
  /// Where the user wrote it, or empty.
  std::string place(std::string_view name) const;
  /// The value as the user gave it; null where it was not given.
  const Node* given(std::string_view name) const { return find(field(name).name); }

  /// For a value that fits its field (assert); the table outlives these values.
  void set(const Field& field, Node node);
  void bind(FieldTable table) { table_ = table; }

 private:
  FieldTable table_;
  std::map<std::string, Node, std::less<>> nodes_;
  const Node* find(std::string_view name) const;
  const Field& field(std::string_view name) const;
};

/// Checks `object` against `table` (null counts as not given): unknown keys (with the nearest known
/// name), wrong types, values out of range, missing ones, one option under two spellings with
/// different values, none or several of those of which one is wanted. All problems are reported,
/// each with its place; `values` holds what is good.
struct Checked {
  Values values;
  std::vector<Error> problems;
};
Checked check(const Node::Object& object, FieldTable table, std::string_view place);

/// Single values, as fields read them. Misconfigured on a wrong form.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);
Result<std::int64_t> parse_bytes(std::string_view text);

}  // namespace relay::config
