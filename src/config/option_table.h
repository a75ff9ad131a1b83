#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "config/fields.h"
#include "core/error.h"

namespace relay::config {

/// A row of a table of options: what the catalogue says of the option, and the member of the struct
/// S that it fills.
///
///     constexpr Option<SinkOptions> kOptions[] = {
///         {{.name = "count", .type = FieldType::integer, .default_text = "500", .min = 1},
///          fills<&SinkOptions::count>},
///     };
///     constexpr auto kFields = fields_of(kOptions);    // what the catalogue and SQL need
///     auto options = filled<SinkOptions>(kOptions, values);
///
/// A row that does not fit its member does not compile. The member holds every value that the row
/// allows. Unless it is a text, a list or a map, an option that may be missing fills a
/// std::optional, and the default of an option that has one stands in the row alone.
template <class S>
struct Option {
  using Fill = Result<void>(S&, const Field&, const Values&);

  Field field;
  Fill* fill = nullptr;

  constexpr Option() = default;
  template <class Filler>
  requires(Filler::template belongs_to<S>) constexpr Option(const Field& row, Filler);
};

namespace filling {

/// Not defined: that a constant expression would call it is the error message of the compiler.
void the_member_cannot_hold_what_the_row_allows();

template <class Member>
struct MemberOf;
template <class S, class T>
struct MemberOf<T S::*> {
  using Struct = S;
};

/// The member at the end of a path of members; without a path the object itself.
template <auto... path>
constexpr auto& at(auto& object) {
  return (object.*....*path);
}
template <class S, auto... path>
using At = std::remove_reference_t<decltype(at<path...>(std::declval<S&>()))>;

/// A type that holds another one, or the type itself.
template <class T>
struct Inner {
  using Type = T;
  static constexpr bool is_optional = false;
  static constexpr bool is_result = false;
};
template <class T>
struct Inner<std::optional<T>> {
  using Type = T;
  static constexpr bool is_optional = true;
  static constexpr bool is_result = false;
};
template <class T>
struct Inner<Result<T>> {
  using Type = T;
  static constexpr bool is_optional = false;
  static constexpr bool is_result = true;
};

/// The argument of a function that makes a member of a value, as it is kept while the function
/// reads it.
template <class Argument>
struct Kept {
  using Type = std::remove_cvref_t<Argument>;
};
template <>
struct Kept<std::string_view> {
  using Type = std::string;
};
template <>
struct Kept<std::span<const std::string>> {
  using Type = std::vector<std::string>;
};

template <class Function>
struct Signature;
template <class R, class Argument>
struct Signature<R (*)(Argument)> {
  using Made = R;
  using Taken = typename Kept<Argument>::Type;
  static constexpr bool takes_name = false;
};
template <class R, class Argument>
struct Signature<R (*)(Argument, std::string_view)> {
  using Made = R;
  using Taken = typename Kept<Argument>::Type;
  static constexpr bool takes_name = true;
};

// A value that fits its row, as the member has it.
void take(const Node& value, std::string& member);
void take(const Node& value, bool& member);
void take(const Node& value, double& member);
void take(const Node& value, std::chrono::milliseconds& member);
void take(const Node& value, std::vector<std::string>& member);
void take(const Node& value, std::map<std::string, std::string>& member);
void take(const Node& value, std::map<std::string, Node>& member);
template <std::integral T>
void take(const Node& value, T& member) {
  member = static_cast<T>(*value.integer());
}
template <class T>
void take(const Node& value, std::optional<T>& member) {
  take(value, member.emplace());
}

constexpr bool always_has_a_value(const Field& row) {
  return row.required || !row.default_text.empty();
}

/// Whether a T holds every value that the row allows.
template <class T>
constexpr bool holds(const Field& row) {
  using Type = FieldType;
  if constexpr (std::is_same_v<T, std::string>) {
    return row.type == Type::text || row.type == Type::choice || row.type == Type::start;
  } else if constexpr (std::is_same_v<T, bool>) {
    return row.type == Type::boolean;
  } else if constexpr (std::is_same_v<T, double>) {
    return row.type == Type::number;
  } else if constexpr (std::is_same_v<T, std::chrono::milliseconds>) {
    return row.type == Type::duration;
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    return row.type == Type::list;
  } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>> ||
                       std::is_same_v<T, std::map<std::string, Node>>) {
    return row.type == Type::map;
  } else if constexpr (std::integral<T>) {
    using Limits = std::numeric_limits<T>;
    return (row.type == Type::integer || row.type == Type::bytes) &&
           row.min >= static_cast<double>(Limits::min()) &&
           row.max <= static_cast<double>(Limits::max());
  } else {
    return false;
  }
}

/// Whether a T says by itself that there was no value: an empty text, list or map.
template <class T>
inline constexpr bool can_be_empty = requires(const T& value) {
  value.empty();
};

/// Whether `choices`, separated by commas, are these names, in any order.
template <class Names>
constexpr bool are_choices(const Names& names, std::string_view choices) {
  std::size_t count = 0;
  for (bool more = true; more; ++count) {
    const auto comma = choices.find(',');
    const auto choice = choices.substr(0, comma);
    if (std::ranges::none_of(names, [&](const auto& one) { return one.name == choice; })) {
      return false;
    }
    more = comma != std::string_view::npos;
    if (more) choices.remove_prefix(comma + 1);
  }
  return count == std::size(names);
}

/// What fills the member at the end of a path of members.
template <auto... path>
struct FillsMember {
  template <class S>
  static constexpr bool belongs_to = requires(S& object) {
    (object.*....*path);
  };
};

template <auto... path>
struct Fills : FillsMember<path...> {
  template <class Member>
  static constexpr bool fits(const Field& row) {
    using Held = typename Inner<Member>::Type;
    if (Inner<Member>::is_optional) return !always_has_a_value(row) && holds<Held>(row);
    return holds<Held>(row) && (always_has_a_value(row) || can_be_empty<Held>);
  }
  template <class S>
  static constexpr bool fits_into(const Field& row) {
    return fits<At<S, path...>>(row);
  }
  template <class S>
  static Result<void> fill(S& object, const Field& field, const Values& values) {
    if (const Node value = values.value(field); !value.is_null()) take(value, at<path...>(object));
    return {};
  }
};

template <const auto& names, auto... path>
struct FillsChoice : FillsMember<path...> {
  template <class S>
  static constexpr bool fits_into(const Field& row) {
    return row.type == FieldType::choice && always_has_a_value(row) &&
           are_choices(names, row.choices) &&
           std::is_same_v<std::remove_cvref_t<decltype(names[0].value)>, At<S, path...>>;
  }
  template <class S>
  static Result<void> fill(S& object, const Field& field, const Values& values) {
    const Node value = values.value(field);
    const auto chosen = std::ranges::find_if(
        names, [&](const auto& one) { return value.text() && *value.text() == one.name; });
    if (chosen != std::end(names)) at<path...>(object) = chosen->value;
    return {};
  }
};

template <auto function, auto... path>
struct FillsWith : FillsMember<path...> {
  using Call = Signature<decltype(function)>;
  template <class S>
  static constexpr bool fits_into(const Field& row) {
    using Made = typename Inner<typename Call::Made>::Type;
    return holds<typename Call::Taken>(row) &&
           std::is_same_v<Made, typename Inner<At<S, path...>>::Type>;
  }
  static auto made_of(const typename Call::Taken& taken, [[maybe_unused]] const Field& field) {
    if constexpr (Call::takes_name) {
      return function(taken, field.name);
    } else {
      return function(taken);
    }
  }
  template <class S>
  static Result<void> fill(S& object, const Field& field, const Values& values) {
    const Node value = values.value(field);
    if (value.is_null()) return {};
    typename Call::Taken taken{};
    take(value, taken);
    auto made = made_of(taken, field);
    if constexpr (Inner<typename Call::Made>::is_result) {
      if (!made) return fail(std::move(made.error()));
      at<path...>(object) = std::move(*made);
    } else {
      at<path...>(object) = std::move(made);
    }
    return {};
  }
};

struct FillsNothing : FillsMember<> {
  template <class S>
  static constexpr bool fits_into(const Field&) {
    return true;
  }
  template <class S>
  static Result<void> fill(S&, const Field&, const Values&) {
    return {};
  }
};

/// A row of the table of a part of the struct: of the member at the end of a path, or of a base.
template <const auto& table, std::size_t row, auto... path>
struct FillsPart : FillsMember<path...> {
  template <class S>
  static constexpr bool fits_into(const Field&) {
    return true;  // the part's own table was checked
  }
  template <class S>
  static Result<void> fill(S& object, const Field& field, const Values& values) {
    return table[row].fill(at<path...>(object), field, values);
  }
};

template <class S, const auto& table, auto... path, std::size_t... rows>
constexpr auto rows_of_part(std::index_sequence<rows...>) {
  return std::array<Option<S>, sizeof...(rows)>{
      Option<S>(table[rows].field, FillsPart<table, rows, path...>())...};
}

template <class Table>
struct Rows;
template <class Row, std::size_t count>
struct Rows<Row[count]> {
  static constexpr std::size_t size = count;
};
template <class Row, std::size_t count>
struct Rows<std::array<Row, count>> {
  static constexpr std::size_t size = count;
};

constexpr const Field& field_of(const Field& field) {
  return field;
}
template <class S>
constexpr const Field& field_of(const Option<S>& option) {
  return option.field;
}

template <class Row, class... Tables>
constexpr auto copies_of(const auto& copy, const Tables&... tables) {
  std::array<Row, (Rows<Tables>::size + ...)> all{};
  std::size_t next = 0;
  const auto append = [&](const auto& table) {
    for (const auto& row : table) all[next++] = copy(row);
  };
  (append(tables), ...);
  return all;
}

}  // namespace filling

template <class S>
template <class Filler>
requires(Filler::template belongs_to<S>) constexpr Option<S>::Option(const Field& row, Filler)
    : field(row), fill(&Filler::template fill<S>) {
  if (!Filler::template fits_into<S>(row)) filling::the_member_cannot_hold_what_the_row_allows();
}

/// The member that a row fills, in S or a base of it; or a member of a member, by its path:
/// `fills<&SinkOptions::client, &ClientOptions::connect_timeout>`. Without a value and a default
/// the member stays as it is.
template <auto... path>
inline constexpr filling::Fills<path...> fills{};

/// The word of a choice, and what it stands for.
template <class Enumeration>
struct Choice {
  std::string_view name;
  Enumeration value;
};
/// The member of an enumeration that a choice fills: `names` is an array of Choice with each of the
/// row's choices.
template <const auto& names, auto... path>
inline constexpr filling::FillsChoice<names, path...> fills_choice{};

/// The member that a row fills with what `function` makes of its value: a function of the value, or
/// of the value and the option's name, which returns the member's value or a Result. Not called
/// where there is neither a value nor a default.
template <auto function, auto... path>
inline constexpr filling::FillsWith<function, path...> fills_with{};

/// Of a row that the struct does not need. A comment beside it says who reads it.
inline constexpr filling::FillsNothing fills_nothing{};

/// The table of a member's struct, as a part of the table of the struct that has the member:
/// `within<&SinkOptions::connection, kConnectionOptions>`.
template <auto member, const auto& table>
inline constexpr auto within =
    filling::rows_of_part<typename filling::MemberOf<decltype(member)>::Struct, table, member>(
        std::make_index_sequence<std::size(table)>());

/// The table of a base, as a part of the table of S: `inherited<Options, kTlsOptions>`.
template <class S, const auto& table>
inline constexpr auto inherited =
    filling::rows_of_part<S, table>(std::make_index_sequence<std::size(table)>());

/// One table of several, in their order.
template <class S, class... Tables>
constexpr auto joined(const Tables&... tables) {
  return filling::copies_of<Option<S>>([](const Option<S>& option) { return option; }, tables...);
}

/// The fields of tables, one after the other.
template <class... Tables>
constexpr auto fields_of(const Tables&... tables) {
  return filling::copies_of<Field>([](const auto& row) { return filling::field_of(row); },
                                   tables...);
}

/// Fills the members that a table names. `values` were checked against a table with its fields.
/// Misconfigured: what a function of `fills_with` refuses; the first one ends it.
template <class S>
Result<void> fill(S& object, std::type_identity_t<std::span<const Option<S>>> table,
                  const Values& values) {
  for (const Option<S>& option : table) {
    if (auto done = option.fill(object, option.field, values); !done) return done;
  }
  return {};
}

/// A struct that a table fills.
template <class S>
Result<S> filled(std::type_identity_t<std::span<const Option<S>>> table, const Values& values) {
  S object{};
  if (auto done = fill(object, table, values); !done) return fail(std::move(done.error()));
  return object;
}

}  // namespace relay::config
