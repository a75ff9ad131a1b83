#pragma once

#include <string>
#include <vector>

#include "schema/manifest.h"

namespace relay::schema {

/// One thing in which a database side is not what this program needs.
struct Difference {
  /// A problem may keep something from working. A warning is about an addition that could.
  bool is_problem = false;
  std::string message;
  std::string remedy;
};

/// The differences, the most important ones first. What users may add without harm is none: a
/// column that needs no value, an index that evaluates nothing, a grant to a role of theirs. What
/// belongs to an extension is left out, and so is what is missing with its table or schema. One
/// difference where there is no schema. Pure.
std::vector<Difference> differences(const Manifest& needed, const Manifest& found);

}  // namespace relay::schema
