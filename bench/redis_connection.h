#pragma once

#include <hiredis/hiredis.h>

#include <string>

#include "outbox_reader.h"

namespace bench {

/// A connection to redis://HOST:PORT.
inline redisContext* open_redis(const std::string& url) {
  const std::string address = url.substr(url.find("://") + 3);
  const std::size_t colon = address.rfind(':');
  redisContext* const context =
      redisConnect(address.substr(0, colon).c_str(), std::stoi(address.substr(colon + 1)));
  if (context == nullptr || context->err != 0) die("connecting to Redis", url.c_str());
  return context;
}

}  // namespace bench
