#pragma once

#include <array>

#include "config/catalogue.h"

namespace relay::config {

/// Some types of sources and sinks with the options that these tests name.
inline const Catalogue& test_catalogue() {
  static constexpr std::array kOutbox = {
      Field{.name = "stream_table", .aliases = "table", .one_of = "outbox", .plain = true},
      Field{.name = "outbox", .one_of = "outbox", .plain = true},
      Field{.name = "group", .plain = true}};
  static constexpr std::array kRemoteOutbox = {
      Field{.name = "url", .required = true},
      Field{.name = "outbox", .aliases = "stream_table", .one_of = "outbox", .plain = true},
      Field{.name = "table", .one_of = "outbox"}};
  static constexpr std::array kInbox = {
      Field{.name = "url"},
      Field{.name = "inbox_name", .aliases = "name", .one_of = "inbox", .plain = true},
      Field{.name = "inbox_table", .aliases = "table", .one_of = "inbox", .plain = true}};
  static constexpr std::array kBroker = {Field{.name = "url"},     Field{.name = "stream"},
                                         Field{.name = "subject"}, Field{.name = "consumer"},
                                         Field{.name = "topic"},   Field{.name = "brokers"}};
  static constexpr std::array kNats = {
      Field{.name = "url"},      Field{.name = "password"},
      Field{.name = "stream"},   Field{.name = "subject"},
      Field{.name = "consumer"}, Field{.name = "max_in_flight", .type = FieldType::integer}};
  static constexpr std::array kWebhook = {Field{.name = "url"}, Field{.name = "listen"},
                                          Field{.name = "path"}};
  static constexpr std::array kFileSource = {Field{.name = "path", .plain = true},
                                             Field{.name = "format", .plain = true},
                                             Field{.name = "follow", .plain = true}};
  static constexpr std::array kFileSink = {
      Field{.name = "path", .plain = true}, Field{.name = "format", .plain = true},
      Field{.name = "rotate_bytes", .plain = true}, Field{.name = "rotate_interval", .plain = true},
      Field{.name = "fsync", .plain = true}};
  static const std::vector<std::string> kFiles = {"stdout", "file", "stdin"};
  static const Catalogue kCatalogue = {
      .sources = {{"outbox", {}, {}, kOutbox, true},
                  {"pg-outbox", {"pg_outbox"}, {}, kRemoteOutbox, true},
                  {"nats", {"jetstream"}, {}, kNats},
                  {"kafka", {}, {}, kBroker},
                  {"redis", {}, {}, kBroker},
                  {"webhook", {"http"}, {}, kWebhook},
                  {"file", {}, kFiles, kFileSource},
                  {"stdin", {}, kFiles, kFileSource}},
      .sinks = {{"nats", {"jetstream"}, {}, kNats},
                {"kafka", {}, {}, kBroker},
                {"redis", {}, {}, kBroker},
                {"webhook", {"http"}, {}, kWebhook},
                {"pg-inbox", {"inbox", "pg_inbox"}, {}, kInbox},
                {"stdout", {}, kFiles, kFileSink},
                {"file", {}, kFiles, kFileSink}}};
  return kCatalogue;
}

}  // namespace relay::config
