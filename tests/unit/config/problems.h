#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"

namespace relay::config {

/// "<code> | <message> | <remedy>" of each, for whole comparisons.
inline std::vector<std::string> told(const std::vector<Error>& problems) {
  std::vector<std::string> out;
  for (const Error& error : problems) {
    EXPECT_EQ(error.error_class, ErrorClass::misconfigured) << error.message;
    out.push_back(error.code + " | " + error.message + " | " + error.remedy);
  }
  return out;
}

using Told = std::vector<std::string>;

}  // namespace relay::config
