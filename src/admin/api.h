#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "admin/http_server.h"
#include "status/instance.h"

namespace relay::admin {

/// The part of the JSON API that uses the database: lists dead letters and, for clients that have
/// the token, makes changes through the same SQL functions as the command line. Any thread; an
/// answer takes a few seconds at most, whatever the database does.
class Api {
 public:
  /// `admin_token` empty: nothing can be changed. The instance outlives this.
  Api(status::Instance& instance, std::string admin_token)
      : instance_(instance), admin_token_(std::move(admin_token)) {}

  HttpResponse dead_letters(const HttpRequest& request);
  /// Any POST.
  HttpResponse change(const HttpRequest& request);

 private:
  status::Instance& instance_;
  const std::string admin_token_;
};

/// A JSON answer, and one that says what is wrong: {"error": ..., "remedy": ...}.
HttpResponse json_response(int status, std::string body);
HttpResponse problem_response(int status, std::string_view what, std::string_view remedy = {});

/// The HTTP status for an error of the database.
int status_of(const Error& error);

}  // namespace relay::admin
