#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/fields.h"
#include "config/tree.h"

namespace relay::config {

/// The options of a JSON text that is well by itself.
inline Values checked(std::string_view json, FieldTable table) {
  const auto node = parse_json(json, "test");
  EXPECT_TRUE(node) << json;
  auto result = check(*node->object(), table, "test");
  EXPECT_TRUE(result.problems.empty()) << result.problems.front().message;
  return std::move(result.values);
}

/// The codes of what is wrong with the options of a JSON text.
inline std::vector<std::string> codes_of_checks(std::string_view json, FieldTable table) {
  const auto node = parse_json(json, "test");
  EXPECT_TRUE(node) << json;
  std::vector<std::string> codes;
  for (const Error& problem : check(*node->object(), table, "test").problems) {
    codes.push_back(problem.code);
  }
  return codes;
}

/// The code of the misconfiguration; empty: there is none.
template <class T>
std::string code_of(const Result<T>& options) {
  if (options) return "";
  EXPECT_EQ(options.error().error_class, ErrorClass::misconfigured);
  return options.error().code;
}

}  // namespace relay::config
