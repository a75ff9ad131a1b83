#include "backends/redis/errors.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string>

namespace relay::redis {

namespace {

/// Error replies by how they begin.
struct Known {
  std::string_view prefix;
  ErrorClass error_class;
  std::string_view code;
  std::string_view remedy;
};

constexpr std::string_view kCluster =
    "name the node that holds the key in url, or send through a proxy that knows the cluster";
constexpr std::string_view kAuthentication = "correct user and password";

constexpr std::array kKnown = {
    Known{"WRONGTYPE", ErrorClass::rejected, "wrong_type",
          "the key holds something that is no stream: rename or remove it, or correct stream_key"},
    Known{"ERR The stream has exhausted", ErrorClass::rejected, "stream_exhausted",
          "the stream's last id is the highest possible: use another key"},
    Known{"ERR The ID specified in XADD", ErrorClass::rejected, "stream_exhausted",
          "the stream's last id is in the far future: use another key"},
    Known{"NOAUTH", ErrorClass::misconfigured, "authentication", "set user and password"},
    Known{"WRONGPASS", ErrorClass::misconfigured, "authentication", kAuthentication},
    Known{"ERR invalid password", ErrorClass::misconfigured, "authentication", kAuthentication},
    Known{"ERR Client sent AUTH", ErrorClass::misconfigured, "authentication",
          "the server has no password: remove it from the configuration"},
    Known{"ERR AUTH <password> called", ErrorClass::misconfigured, "authentication",
          "the server has no password: remove it from the configuration"},
    Known{"NOPERM", ErrorClass::misconfigured, "not_permitted",
          "allow the user the command and the key (ACL SETUSER)"},
    Known{"DENIED", ErrorClass::misconfigured, "protected_mode",
          "give the server a password, or let it listen where the relay is"},
    Known{"ERR DB index", ErrorClass::misconfigured, "no_database",
          "correct the database's number"},
    Known{"ERR invalid DB index", ErrorClass::misconfigured, "no_database",
          "correct the database's number"},
    Known{"ERR SELECT is not allowed", ErrorClass::misconfigured, "no_database",
          "a cluster has only database 0"},
    Known{"ERR unknown command", ErrorClass::misconfigured, "unknown_command",
          "streams need Redis 5 or later, and the command must not be renamed"},
    Known{"MOVED", ErrorClass::misconfigured, "cluster", kCluster},
    Known{"ASK", ErrorClass::misconfigured, "cluster", kCluster},
    Known{"CROSSSLOT", ErrorClass::misconfigured, "cluster", kCluster},
    Known{"OOM", ErrorClass::transient, "out_of_memory",
          "raise maxmemory, set maxlen, or let the server evict"},
    Known{"READONLY", ErrorClass::transient, "read_only",
          "the server is a replica: name the master in url, or several servers"},
    Known{"LOADING", ErrorClass::transient, "loading", "the server reads its data: wait"},
    Known{"MISCONF", ErrorClass::transient, "cannot_persist",
          "the server cannot save to its disk: make room, and look at its log"},
    Known{"NOREPLICAS", ErrorClass::transient, "no_replicas",
          "too few replicas are connected (min-replicas-to-write)"},
};

}  // namespace

Error refusal(std::string_view reply, std::string_view subject, std::string_view address) {
  const auto said = reply.substr(0, 300);
  const auto message =
      fmt::format("Redis at {} refuses {}: {}", address, subject.substr(0, 200), said);
  const auto known =
      std::ranges::find_if(kKnown, [&](const Known& one) { return reply.starts_with(one.prefix); });
  if (known == kKnown.end()) {
    return {ErrorClass::transient, "refused", message, "look at the server and its log", {}};
  }
  return {known->error_class, std::string(known->code), message, std::string(known->remedy), {}};
}

}  // namespace relay::redis
