#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "admin/http_server.h"
#include "postgres/pool.h"

namespace relay::admin {

/// The part of the JSON API that uses the database: lists dead letters and, for clients that have
/// the token, makes changes through the same SQL functions as the command line. Any thread; an
/// answer takes a few seconds at most, whatever the database does.
class Api {
 public:
  /// `dead_letters`: their table. `admin_token` empty: nothing can be changed. The pool outlives
  /// this.
  Api(postgres::Pool& pool, std::string_view dead_letters, std::string admin_token);

  HttpResponse dead_letters(const HttpRequest& request);
  /// Any POST.
  HttpResponse change(const HttpRequest& request);

 private:
  Result<postgres::Rows> query(std::string_view sql, std::span<const postgres::Param> params);
  postgres::Pool& pool_;
  const std::string list_letters_;
  const std::string admin_token_;
};

/// A JSON answer, and one that says what is wrong: {"error": ..., "remedy": ...}.
HttpResponse json_response(int status, std::string body);
HttpResponse problem_response(int status, std::string_view what, std::string_view remedy = {});

/// The HTTP status for an error of the database.
int status_of(const Error& error);

}  // namespace relay::admin
