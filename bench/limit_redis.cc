// The shortest way from an outbox to a Redis stream that notices each reply.
//   limit_redis POSTGRES_URL OUTBOX_TABLE BATCH redis://HOST:PORT STREAM_KEY ID_PREFIX
#include <array>
#include <string_view>

#include "outbox_reader.h"
#include "redis_connection.h"

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_redis.cc");
  const bench::Connection connection = bench::connect(argv[1]);
  redisContext* const redis = bench::open_redis(argv[4]);
  const int batch = std::atoi(argv[3]);
  int waiting = 0;
  const auto take_replies = [&] {
    for (; waiting > 0; --waiting) {
      void* reply = nullptr;
      if (redisGetReply(redis, &reply) != REDIS_OK) bench::die("waiting", redis->errstr);
      if (static_cast<redisReply*>(reply)->type == REDIS_REPLY_ERROR) {
        bench::die("XADD", static_cast<redisReply*>(reply)->str);
      }
      freeReplyObject(reply);
    }
  };
  bench::read_outbox(
      connection.get(), argv[2], batch, [&](const char* id, const char* payload, int length) {
        const std::string message_id = std::string(argv[6]) + ":" + id;
        const std::array<std::string_view, 13> words = {"XADD",
                                                        argv[5],
                                                        "*",
                                                        "payload",
                                                        {payload, static_cast<std::size_t>(length)},
                                                        "pgtrickle_id",
                                                        message_id,
                                                        "pgtrickle_op",
                                                        bench::kOp,
                                                        "pgtrickle_stream_table",
                                                        bench::kTable,
                                                        "pgtrickle_outbox_id",
                                                        id};
        std::array<const char*, words.size()> texts{};
        std::array<std::size_t, words.size()> sizes{};
        for (std::size_t i = 0; i < words.size(); ++i) {
          texts[i] = words[i].data();
          sizes[i] = words[i].size();
        }
        redisAppendCommandArgv(redis, static_cast<int>(words.size()), texts.data(), sizes.data());
        if (++waiting == batch) take_replies();
      });
  take_replies();
  redisFree(redis);
  return 0;
}
