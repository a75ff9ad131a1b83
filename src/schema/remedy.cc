#include "schema/remedy.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>

namespace relay::schema {

namespace {

/// `init` first: it knows what an upgrade does beside that statement.
std::string init_or(std::string_view statement) {
  return fmt::format("{}; if that is not enough: {};", kInit, statement);
}

std::string upper(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

/// "<words><entry>;" for each entry of a list with commas.
std::string for_each(std::string_view list, std::string_view words, std::string_view behind = "") {
  std::string statements;
  while (!list.empty()) {
    const auto end = std::min(list.find(','), list.size());
    statements +=
        fmt::format("{}{}{}{};", statements.empty() ? "" : " ", words, list.substr(0, end), behind);
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return statements;
}

/// The object as SQL names it behind ALTER, DROP and GRANT ... ON.
std::string in_sql(const Object& object) {
  return upper(object.kind) + ' ' + object.name;
}

std::string create_column(const Object& column) {
  std::string sql = fmt::format("ALTER TABLE {} ADD COLUMN {} {}", column.attribute("table"),
                                column.part(), column.attribute("type"));
  if (column.has("not null")) sql += " NOT NULL";
  if (column.has("default")) sql += fmt::format(" DEFAULT {}", column.attribute("default"));
  if (column.has("generated")) {
    sql += fmt::format(" GENERATED ALWAYS AS ({}) STORED", column.attribute("generated"));
  }
  if (column.has("identity")) {
    sql += fmt::format(" GENERATED {} AS IDENTITY", column.attribute("identity"));
  }
  return sql;
}

std::string create_constraint(const Object& constraint) {
  return fmt::format("ALTER TABLE {} ADD CONSTRAINT {} {}", constraint.attribute("table"),
                     constraint.part(), constraint.attribute("definition"));
}

/// Empty: SQL alone does not create it.
std::string create(const Object& object) {
  if (object.kind == "column" && object.has("table")) return create_column(object);
  if (object.kind == "constraint") return create_constraint(object);
  if (object.kind == "index" || object.kind == "trigger" || object.kind == "rule") {
    return std::string(object.attribute("definition"));
  }
  return "";
}

std::string drop(const Object& object) {
  if (object.has("view")) return fmt::format("DROP VIEW {} CASCADE", object.whole());
  if (object.kind == "constraint" || object.kind == "column") {
    return fmt::format("ALTER TABLE {} DROP {} {}", object.attribute("table"), upper(object.kind),
                       object.part());
  }
  if (object.kind == "trigger" || object.kind == "rule" || object.kind == "policy") {
    return fmt::format("DROP {} {} ON {}", upper(object.kind), object.part(),
                       object.attribute("table"));
  }
  return "DROP " + in_sql(object);
}

std::string create_constraint_again(const Object& constraint) {
  return fmt::format("ALTER TABLE {0} DROP CONSTRAINT {1}, ADD CONSTRAINT {1} {2}",
                     constraint.attribute("table"), constraint.part(),
                     constraint.attribute("definition"));
}

std::string alter_column(const Object& column, std::string_view attribute) {
  const std::string_view wanted = column.attribute(attribute);
  std::string action = "TYPE " + std::string(column.attribute("type"));
  if (attribute == "not null") action = wanted.empty() ? "DROP NOT NULL" : "SET NOT NULL";
  if (attribute == "default") {
    action = wanted.empty() ? "DROP DEFAULT" : fmt::format("SET DEFAULT {}", wanted);
  }
  if (attribute == "identity") {
    action = wanted.empty() ? "DROP IDENTITY" : fmt::format("ADD GENERATED {} AS IDENTITY", wanted);
  }
  return fmt::format("ALTER TABLE {} ALTER COLUMN {} {}", column.attribute("table"), column.part(),
                     action);
}

std::string alter_sequence(const Object& sequence, std::string_view attribute) {
  const std::string_view value = sequence.attribute(attribute);
  if (attribute == "type") return fmt::format("ALTER SEQUENCE {} AS {}", sequence.name, value);
  if (attribute == "cycle") return fmt::format("ALTER SEQUENCE {} NO CYCLE", sequence.name);
  return fmt::format("ALTER SEQUENCE {} {} {}", sequence.name, upper(attribute), value);
}

std::string alter_role(const Object& needed, const Object& found, std::string_view attribute) {
  if (attribute == "members") {
    return fmt::format("if that was not meant: {}",
                       for_each(found.attribute(attribute), "REVOKE " + needed.name + " FROM "));
  }
  if (attribute == "member of") {
    const std::string_view wanted = needed.attribute(attribute);
    if (!without(wanted, found.attribute(attribute)).empty()) return std::string(kInit);
    return fmt::format("if that was not meant: REVOKE {} FROM {};",
                       without(found.attribute(attribute), wanted), found.name);
  }
  std::string sql = "ALTER ROLE " + needed.name;
  std::string_view rest = found.attribute(attribute);
  while (!rest.empty()) {
    const auto end = std::min(rest.find(' '), rest.size());
    const std::string_view word = rest.substr(0, end);
    sql += word == "NOINHERIT" ? " INHERIT" : fmt::format(" NO{}", word);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return sql + ';';
}

/// As GRANT and REVOKE name them.
std::string privileges_on(const Object& object, std::string_view privileges) {
  if (object.kind == "column") {
    return fmt::format("{} ({}) ON TABLE {}", privileges, object.part(), object.attribute("table"));
  }
  return fmt::format("{} ON {} {}", privileges,
                     object.kind == "view" ? "TABLE" : upper(object.kind), object.name);
}

}  // namespace

bool is_not_valid(const Object& object) {
  return object.kind == "constraint" && object.attribute("definition").ends_with(" NOT VALID");
}

std::string remedy_for_missing(const Object& needed) {
  const std::string statement = create(needed);
  return statement.empty() ? std::string(kInit) : init_or(statement);
}

std::string remedy_for_changed(const Object& needed, const Object& found,
                               std::string_view attribute) {
  if (needed.kind == "role") return alter_role(needed, found, attribute);
  if (attribute == "owner") {
    return init_or(fmt::format("ALTER {} OWNER TO {}", in_sql(needed), needed.attribute("owner")));
  }
  if (attribute == "row security") {
    return fmt::format("ALTER TABLE {} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;",
                       needed.name);
  }
  if (attribute == "fires") {
    return fmt::format("ALTER TABLE {} ENABLE{} TRIGGER {};", needed.attribute("table"),
                       needed.attribute("fires") == "always" ? " ALWAYS" : "", needed.part());
  }
  if (attribute == "persistence") {
    return fmt::format("ALTER {} SET {};", in_sql(needed),
                       needed.attribute(attribute).empty() ? "LOGGED" : "UNLOGGED");
  }
  if (attribute == "replica identity") {
    return fmt::format("ALTER TABLE {} REPLICA IDENTITY DEFAULT;", needed.name);
  }
  if (attribute == "autovacuum") {
    return fmt::format("ALTER TABLE {} RESET (autovacuum_enabled, toast.autovacuum_enabled);",
                       needed.name);
  }
  if (attribute == "children") {
    return for_each(found.attribute(attribute), "ALTER TABLE ", " NO INHERIT " + needed.name);
  }
  if (attribute == "parents") {
    return for_each(found.attribute(attribute),
                    fmt::format("ALTER TABLE {} NO INHERIT ", needed.name));
  }
  if (attribute == "dropped with") {
    return for_each(found.attribute(attribute),
                    fmt::format("ALTER FUNCTION {} NO DEPENDS ON EXTENSION ", needed.name));
  }
  if (needed.kind == "constraint") {
    if (attribute == "invalid") {  // its index has its name, in the schema of its table
      const std::string_view table = needed.attribute("table");
      return fmt::format("REINDEX INDEX {}.{};", table.substr(0, table.find('.')), needed.part());
    }
    if (attribute == "definition" && is_not_valid(found)) {
      return fmt::format("ALTER TABLE {} VALIDATE CONSTRAINT {};", needed.attribute("table"),
                         needed.part());
    }
    return create_constraint_again(needed) + ';';
  }
  if (attribute == "invalid") return fmt::format("REINDEX INDEX {};", needed.name);
  if (needed.kind == "column" && needed.has("table")) {
    const std::string statement = alter_column(needed, attribute);
    if (attribute != "type") return init_or(statement);
    return init_or(statement) + " views that use it are dropped before, and init makes them again";
  }
  if (needed.kind == "sequence") return init_or(alter_sequence(needed, attribute));
  const std::string again = create(needed);
  if (!again.empty()) return init_or(fmt::format("{}; {}", drop(found), again));
  const bool replaces = needed.kind == "function" && attribute != "result" &&
                        attribute != "arguments" && attribute != "kind";
  // A table is never dropped: its rows would be lost.
  if (replaces || attribute == "definition" || needed.kind == "table") return std::string(kInit);
  return fmt::format("{}; if that fails: {}; and init again", kInit, drop(found));
}

std::string remedy_for_added(const Object& found) {
  if (found.kind == "column" && found.has("evaluates")) {
    return fmt::format("if it is not yours: ALTER TABLE {} DROP COLUMN {};",
                       found.attribute("table"), found.part());
  }
  if (found.kind == "column") {
    return fmt::format("give it a default, or: ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                       found.attribute("table"), found.part());
  }
  return fmt::format("if it is not yours: {};", drop(found));
}

std::string remedy_for_revoked(const Object& object, std::string_view role,
                               std::string_view privileges) {
  return init_or(fmt::format("GRANT {} TO {}", privileges_on(object, privileges), role));
}

std::string remedy_for_granted(const Object& object, std::string_view role,
                               std::string_view privileges) {
  return fmt::format("if that was not meant: REVOKE {} FROM {};", privileges_on(object, privileges),
                     role);
}

}  // namespace relay::schema
