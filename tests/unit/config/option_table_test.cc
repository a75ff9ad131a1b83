#include "config/option_table.h"

#include <gtest/gtest.h>

#include <string>
#include <type_traits>

#include "config/checked.h"

namespace relay::config {
namespace {

enum class Colour { red, green };
constexpr Choice<Colour> kColours[] = {{"red", Colour::red}, {"green", Colour::green}};

struct Base {
  std::string name;
};

struct Part {
  bool on = false;
  std::optional<std::int64_t> limit;
};

struct Deep {
  Part part;
};

struct Whole : Base {
  Part part;
  Deep deep;
  Colour colour{};
  std::uint16_t port = 0;
  std::size_t length = 77;
  std::string words;
};

Result<std::size_t> length_of(std::string_view text, std::string_view option) {
  if (text == "bad") return fail(misconfigured("bad", std::string(option) + " is bad", ""));
  return text.size();
}

std::string words_of(std::span<const std::string> list) {
  std::string all;
  for (const std::string& word : list) all += word;
  return all;
}

constexpr Option<Base> kBase[] = {{{.name = "name"}, fills<&Base::name>}};
constexpr Option<Part> kPart[] = {
    {{.name = "on", .type = FieldType::boolean, .default_text = "true"}, fills<&Part::on>},
    {{.name = "limit", .type = FieldType::bytes}, fills<&Part::limit>},
};
constexpr Option<Whole> kOwn[] = {
    {{.name = "colour", .type = FieldType::choice, .default_text = "green", .choices = "green,red"},
     fills_choice<kColours, &Whole::colour>},
    {{.name = "port", .type = FieldType::integer, .default_text = "8080", .max = 65535},
     fills<&Whole::port>},
    {{.name = "deep_limit", .type = FieldType::integer},
     fills<&Whole::deep, &Deep::part, &Part::limit>},
    {{.name = "length"}, fills_with<&length_of, &Whole::length>},
    {{.name = "words", .type = FieldType::list, .default_text = "a"},
     fills_with<&words_of, &Whole::words>},
    {{.name = "other"}, fills_nothing},
};
constexpr auto kWhole = joined<Whole>(inherited<Whole, kBase>, within<&Whole::part, kPart>, kOwn);
constexpr auto kFields = fields_of(kWhole);

Whole filled_from(std::string_view json) {
  return *filled<Whole>(kWhole, checked(json, kFields));
}

TEST(OptionTable, EveryRowFillsItsMember) {
  const Whole whole = filled_from(
      R"({"name": "n", "on": false, "limit": "2KiB", "colour": "red", "port": 65535,
          "deep_limit": 5, "length": "four", "words": ["x", "y"], "other": "o"})");
  EXPECT_EQ(whole.name, "n");
  EXPECT_FALSE(whole.part.on);
  EXPECT_EQ(whole.part.limit, 2048);
  EXPECT_EQ(whole.colour, Colour::red);
  EXPECT_EQ(whole.port, 65535);
  EXPECT_EQ(whole.deep.part.limit, 5);
  EXPECT_EQ(whole.length, 4u);
  EXPECT_EQ(whole.words, "xy");
}

TEST(OptionTable, WithoutAValueTheMemberHasTheRowsDefaultOrStaysAsItIs) {
  const Whole whole = filled_from("{}");
  EXPECT_EQ(whole.name, "");
  EXPECT_TRUE(whole.part.on);
  EXPECT_EQ(whole.part.limit, std::nullopt);
  EXPECT_EQ(whole.colour, Colour::green);
  EXPECT_EQ(whole.port, 8080);
  EXPECT_EQ(whole.length, 77u);
  EXPECT_EQ(whole.words, "a");
}

TEST(OptionTable, AFunctionRefusesAValueByTheOptionsName) {
  const auto refused = filled<Whole>(kWhole, checked(R"({"length": "bad"})", kFields));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "length is bad");
}

TEST(OptionTable, TheFieldsAreThoseOfTheTablesInTheirOrder) {
  std::string names;
  for (const Field& field : kFields) names += std::string(field.name) + " ";
  EXPECT_EQ(names, "name on limit colour port deep_limit length words other ");
}

template <class S, class Filler>
constexpr bool fits(Filler, const Field& row) {
  return Filler::template fits_into<S>(row);
}

TEST(OptionTable, ARowOfAnotherTypeIsRefused) {
  constexpr Field kText{.name = "x"};
  constexpr Field kNumber{.name = "x", .type = FieldType::integer, .default_text = "1", .max = 9};
  static_assert(fits<Base>(fills<&Base::name>, kText));
  static_assert(!fits<Base>(fills<&Base::name>, kNumber));
  static_assert(fits<Whole>(fills<&Whole::port>, kNumber));
  static_assert(!fits<Whole>(fills<&Whole::port>, kText));
  static_assert(!fits<Part>(fills<&Part::on>, kNumber));
  static_assert(!fits<Whole>(fills_with<&length_of, &Whole::length>, kNumber));
  static_assert(!fits<Whole>(fills_with<&length_of, &Whole::words>, kText));
}

TEST(OptionTable, ARangeThatTheMemberCannotHoldIsRefused) {
  constexpr Field kLarge{
      .name = "x", .type = FieldType::integer, .default_text = "1", .max = 65536};
  constexpr Field kNegative{
      .name = "x", .type = FieldType::integer, .default_text = "1", .min = -1, .max = 9};
  static_assert(!fits<Whole>(fills<&Whole::port>, kLarge));
  static_assert(!fits<Whole>(fills<&Whole::port>, kNegative));
  static_assert(fits<Whole>(fills<&Whole::length>, kLarge));
}

TEST(OptionTable, AnOptionThatMayBeMissingNeedsAMemberThatSaysSo) {
  constexpr Field kMaybe{.name = "x", .type = FieldType::integer, .max = 9};
  constexpr Field kAlways{.name = "x", .type = FieldType::integer, .required = true, .max = 9};
  static_assert(!fits<Whole>(fills<&Whole::length>, kMaybe));
  static_assert(fits<Whole>(fills<&Whole::length>, kAlways));
  static_assert(fits<Part>(fills<&Part::limit>, kMaybe));
  static_assert(!fits<Part>(fills<&Part::limit>, kAlways));
}

TEST(OptionTable, AChoiceWithOtherWordsThanTheNamesIsRefused) {
  const auto row = [](std::string_view choices) constexpr {
    return Field{.name = "x", .type = FieldType::choice, .default_text = "red", .choices = choices};
  };
  static_assert(fits<Whole>(fills_choice<kColours, &Whole::colour>, row("red,green")));
  static_assert(!fits<Whole>(fills_choice<kColours, &Whole::colour>, row("red")));
  static_assert(!fits<Whole>(fills_choice<kColours, &Whole::colour>, row("red,blue")));
  static_assert(!fits<Whole>(fills_choice<kColours, &Whole::colour>, row("red,green,blue")));
}

TEST(OptionTable, AMemberOfAnotherStructIsRefused) {
  using FillsPart = std::remove_cv_t<decltype(fills<&Part::on>)>;
  using FillsName = std::remove_cv_t<decltype(fills<&Base::name>)>;
  static_assert(std::is_constructible_v<Option<Part>, const Field&, FillsPart>);
  static_assert(!std::is_constructible_v<Option<Whole>, const Field&, FillsPart>);
  static_assert(std::is_constructible_v<Option<Whole>, const Field&, FillsName>);  // of a base
}

}  // namespace
}  // namespace relay::config
