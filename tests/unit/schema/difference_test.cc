#include "schema/difference.h"

#include <gtest/gtest.h>

#include <string>

namespace relay::schema {
namespace {

/// Lines with "|" in place of tabs.
Manifest manifest(std::initializer_list<std::string> lines) {
  Manifest made;
  for (std::string line : lines) {
    for (char& c : line) c = c == '|' ? '\t' : c;
    add_line(made, line);
  }
  return made;
}

const std::initializer_list<std::string> kNeeded{
    "schema s|owner=us|grants relay=USAGE",
    "role us",
    "table s.t|owner=us|grants relay=INSERT,SELECT",
    "column s.t.id|table=s.t|type=bigint|not null=yes|identity=ALWAYS",
    "column s.t.note|table=s.t|type=text|default='a (b)'::text",
    "constraint s.t.t_pkey|table=s.t|definition=PRIMARY KEY (id)",
    "function s.f(text, integer)|owner=us|security=definer|set=search_path=pg_catalog|body=1",
};

/// Messages, one a line; '!' before that of a problem.
std::string told(const Manifest& found) {
  std::string text;
  for (const auto& [is_problem, message, remedy] : differences(manifest(kNeeded), found)) {
    EXPECT_FALSE(remedy.empty()) << message;
    text += (is_problem ? "!" : "") + message + "\n";
  }
  return text;
}

std::string remedy(const Manifest& found) {
  const auto all = differences(manifest(kNeeded), found);
  return all.size() == 1 ? all.front().remedy : std::to_string(all.size()) + " differences";
}

Manifest without(const std::string& title) {
  Manifest found = manifest(kNeeded);
  found.erase(title);
  return found;
}

Manifest with(const std::string& line) {
  Manifest found = manifest(kNeeded);
  found.merge(manifest({line}));
  return found;
}

Manifest changed(const std::string& title, const std::string& attribute, const std::string& value) {
  Manifest found = manifest(kNeeded);
  auto& attributes = found.find(title)->second.attributes;
  if (value.empty()) {
    attributes.erase(attribute);
  } else {
    attributes[attribute] = value;
  }
  return found;
}

TEST(DifferenceTest, TheSameHasNone) {
  EXPECT_EQ(told(manifest(kNeeded)), "");
}

TEST(DifferenceTest, WhatIsMissingIsNamedOnceWithAllThatIsInIt) {
  EXPECT_EQ(told(without("column s.t.note")), "!column s.t.note is missing\n");
  EXPECT_EQ(told(without("function s.f(text, integer)")),
            "!function s.f(text, integer) is missing\n");
  Manifest no_table = manifest({"schema s|owner=us|grants relay=USAGE", "role us"});
  EXPECT_EQ(told(no_table), "!table s.t is missing\n!function s.f(text, integer) is missing\n");
  EXPECT_EQ(told(manifest({"role us"})), "!the database side is not installed\n");
}

TEST(DifferenceTest, WhatIsChangedIsNamedWithBothValues) {
  EXPECT_EQ(told(changed("column s.t.id", "type", "integer")),
            "!column s.t.id: type is integer, not bigint\n");
  EXPECT_EQ(told(changed("column s.t.note", "default", "")),
            "!column s.t.note: default is none, not 'a (b)'::text\n");
  EXPECT_EQ(told(changed("function s.f(text, integer)", "body", "2")),
            "!function s.f(text, integer): the body differs\n");
  EXPECT_EQ(told(changed("function s.f(text, integer)", "set", "")),
            "!function s.f(text, integer): the SET clause is none, not search_path=pg_catalog\n");
  EXPECT_EQ(told(changed("table s.t", "row security", "enabled")),
            "!table s.t: row security is enabled, not none\n");
}

TEST(DifferenceTest, ParenthesesAreADifference) {
  EXPECT_EQ(told(changed("column s.t.note", "default", "'a b'::text")),
            "!column s.t.note: default is 'a b'::text, not 'a (b)'::text\n");
  EXPECT_EQ(told(changed("constraint s.t.t_pkey", "definition", "PRIMARY KEY ((id))")),
            "!constraint s.t.t_pkey: definition is PRIMARY KEY ((id)), not PRIMARY KEY (id)\n");
}

TEST(DifferenceTest, PrivilegesAreComparedOneByOne) {
  EXPECT_EQ(told(changed("table s.t", "grants relay", "DELETE,SELECT")),
            "!role relay lacks INSERT on table s.t\n"
            "role relay has DELETE on table s.t, which an installation does not give\n");
  EXPECT_EQ(told(changed("schema s", "grants PUBLIC", "USAGE")),
            "PUBLIC has USAGE on schema s, which an installation does not give\n");
  EXPECT_EQ(told(changed("table s.t", "owner lacks", "INSERT")),
            "!role us lacks INSERT on its table s.t\n");
}

TEST(DifferenceTest, OnlyDangerousAdditionsAreNamed) {
  EXPECT_EQ(told(with("column s.t.mine|table=s.t|type=text")), "");
  EXPECT_EQ(told(with("column s.t.mine|table=s.t|type=text|not null=yes|default=''::text")), "");
  EXPECT_EQ(told(with("index s.mine|table=s.t|definition=CREATE INDEX mine")), "");
  EXPECT_EQ(told(with("column s.t.mine|table=s.t|type=text|not null=yes")),
            "!unexpected column s.t.mine: it is NOT NULL and has no default\n");
  EXPECT_EQ(told(with("trigger s.t.mine|table=s.t|definition=CREATE TRIGGER mine")),
            "unexpected trigger s.t.mine on s.t: it can make statements of the relay fail\n");
  EXPECT_EQ(told(with("function s.f(text)|owner=you")),
            "unexpected function s.f(text) of role you: left by an earlier version, or made by "
            "hand\n");
}

TEST(DifferenceTest, AttributesThatARoleMustNotHaveAreAWarning) {
  EXPECT_EQ(told(changed("role us", "attributes", "LOGIN")),
            "role us: attributes is LOGIN, not none\n");
  EXPECT_EQ(remedy(changed("role us", "attributes", "SUPERUSER LOGIN")),
            "ALTER ROLE us NOSUPERUSER NOLOGIN;");
  EXPECT_EQ(remedy(changed("role us", "member of", "others")),
            "if that was not meant: REVOKE others FROM us;");
}

TEST(DifferenceTest, WhatAnExtensionOwnsIsLeftOut) {
  Manifest found =
      manifest({"schema s|extension=e", "role us", "table s.t|extension=e",
                "function s.f(text, integer)|extension=e", "function s.g()|extension=e"});
  EXPECT_EQ(told(found), "");
}

TEST(DifferenceTest, TheRemedyOfATablesPartIsAlsoSql) {
  const std::string init = "pgtrickle-relay init; if that is not enough: ";
  EXPECT_EQ(remedy(without("column s.t.note")),
            init + "ALTER TABLE s.t ADD COLUMN note text DEFAULT 'a (b)'::text;");
  EXPECT_EQ(remedy(without("constraint s.t.t_pkey")),
            init + "ALTER TABLE s.t ADD CONSTRAINT t_pkey PRIMARY KEY (id);");
  EXPECT_EQ(remedy(changed("column s.t.id", "type", "integer")),
            init +
                "ALTER TABLE s.t ALTER COLUMN id TYPE bigint; views that use it are dropped "
                "before, and init makes them again");
  EXPECT_EQ(remedy(changed("column s.t.note", "not null", "yes")),
            init + "ALTER TABLE s.t ALTER COLUMN note DROP NOT NULL;");
  EXPECT_EQ(remedy(with("trigger s.t.mine|table=s.t|definition=CREATE TRIGGER mine")),
            "if it is not yours: DROP TRIGGER mine ON s.t;");
  EXPECT_EQ(remedy(changed("function s.f(text, integer)", "owner", "you")),
            init + "ALTER FUNCTION s.f(text, integer) OWNER TO us;");
}

}  // namespace
}  // namespace relay::schema
