#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "admin/http_server.h"
#include "config/fields.h"
#include "postgres/connection.h"

namespace relay::admin {

/// A change that the API offers: a path, and the SQL function that makes the change.
struct ChangeRoute {
  std::string_view path;  ///< "/api/pipelines/*/pause"; the star stands for the first parameter
  std::string_view sql;
  config::FieldTable arguments;  ///< the further parameters, in their order
  std::string_view result;       ///< its result's name in the answer; empty: it has none
};

struct Change {
  const ChangeRoute* route = nullptr;
  std::vector<postgres::Param> params;
};

/// The change that a POST asks for. Arguments come from a JSON object as body, or from the query.
/// Null: the API offers no change at this path. Misconfigured: an argument is wrong, missing or
/// unknown.
Result<std::optional<Change>> change_of(const HttpRequest& request);

}  // namespace relay::admin
