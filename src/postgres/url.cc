#include "postgres/url.h"

#include <libpq-fe.h>

#include <memory>

namespace relay::postgres {

namespace {

struct ConninfoDeleter {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

}  // namespace

std::map<std::string, std::string> parse_url(const std::string& url) {
  const std::unique_ptr<PQconninfoOption, ConninfoDeleter> options(
      PQconninfoParse(url.c_str(), nullptr));
  std::map<std::string, std::string> values;
  for (const PQconninfoOption* option = options.get();
       option != nullptr && option->keyword != nullptr; ++option) {
    if (option->val != nullptr) values[option->keyword] = option->val;
  }
  return values;
}

}  // namespace relay::postgres
