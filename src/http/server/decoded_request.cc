#include "http/server/decoded_request.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/percent.h"

namespace relay::http {

namespace {

/// In a query a plus is a space.
std::string decoded_value(std::string_view text) {
  std::string spaced(text);
  std::replace(spaced.begin(), spaced.end(), '+', ' ');
  return percent_decoded_where_possible(spaced);
}

void read_query(std::string_view text, std::map<std::string, std::string>& query) {
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
    const auto equals = std::min(pair.find('='), pair.size());
    query[decoded_value(pair.substr(0, equals))] =
        decoded_value(pair.substr(std::min(equals + 1, pair.size())));
  }
}

}  // namespace

DecodedRequest decoded(IncomingRequest&& raw) {
  DecodedRequest request;
  request.method = std::move(raw.method);
  request.target = std::move(raw.target);
  const std::string_view target = request.target;
  const auto mark = std::min(target.find('?'), target.size());
  request.path = percent_decoded_where_possible(target.substr(0, mark));
  if (mark < target.size()) read_query(target.substr(mark + 1), request.query);
  for (auto& [name, value] : raw.headers) {
    request.headers.insert_or_assign(std::move(name), std::move(value));
  }
  request.body = std::move(raw.body);
  return request;
}

}  // namespace relay::http
