// The shortest way from a Redis stream into an inbox that acknowledges what is committed.
//   limit_from_redis INBOX_URL INBOX_TABLE BATCH COUNT redis://HOST:PORT STREAM_KEY
#include <memory>
#include <vector>

#include "inbox_writer.h"
#include "redis_connection.h"

namespace {

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

Reply call(redisContext* redis, const std::vector<std::string_view>& words) {
  std::vector<const char*> texts;
  std::vector<std::size_t> sizes;
  for (const std::string_view word : words) {
    texts.push_back(word.data());
    sizes.push_back(word.size());
  }
  Reply reply(static_cast<redisReply*>(
      redisCommandArgv(redis, static_cast<int>(words.size()), texts.data(), sizes.data())));
  if (!reply) bench::die("calling Redis", redis->errstr);
  if (reply->type == REDIS_REPLY_ERROR) bench::die("calling Redis", reply->str);
  return reply;
}

std::string_view text(const redisReply* reply) {
  return {reply->str, reply->len};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_from_redis.cc");
  bench::InboxWriter writer(argv[1], argv[2], std::atoi(argv[3]));
  redisContext* const redis = bench::open_redis(argv[5]);
  const std::string key = argv[6];
  call(redis, {"XGROUP", "CREATE", key, "limit", "0"});
  const auto acknowledge = [&](const std::vector<std::string>& entries) {
    std::vector<std::string_view> words = {"XACK", key, "limit"};
    words.insert(words.end(), entries.begin(), entries.end());
    call(redis, words);
  };
  for (long left = std::atol(argv[4]); left > 0;) {
    const Reply reply = call(redis, {"XREADGROUP", "GROUP", "limit", "limit", "COUNT", argv[3],
                                     "BLOCK", "1000", "STREAMS", key, ">"});
    if (reply->type != REDIS_REPLY_ARRAY) continue;
    const redisReply* const entries = reply->element[0]->element[1];
    std::vector<std::string> read;
    for (std::size_t i = 0; i < entries->elements; ++i) {
      const redisReply* const entry = entries->element[i];
      const redisReply* const fields = entry->element[1];
      read.emplace_back(text(entry->element[0]));
      const std::string id(text(fields->element[3]));
      writer.add(id, key, text(fields->element[1]), bench::headers_of(id));
    }
    left -= static_cast<long>(entries->elements);
    writer.send([&acknowledge, read = std::move(read)] { acknowledge(read); });
  }
  writer.finish();
  redisFree(redis);
  return 0;
}
