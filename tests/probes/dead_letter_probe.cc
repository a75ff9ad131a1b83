// Dead letters of the pipeline "p" of the group "g" in any table: `dead_letter_probe URL TABLE
// store ID KEY`, `take` (prints id and key of each that is to be sent again), `fail` and `resolve`
// (all of these), `parked` (prints the keys).

#include <cstdio>
#include <string>
#include <string_view>

#include "postgres/pool.h"
#include "state/dead_letters.h"

using namespace relay;

namespace {

int failed(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  return 1;
}

Result<void> retry(state::DeadLetterTable& letters, std::string_view what) {
  const auto taken = letters.take_retries(100);
  if (!taken) return fail(taken.error());
  for (const DeadLetter& letter : *taken) {
    Result<void> done;
    if (what == "take") {
      std::printf("%s %s\n", letter.message_id.c_str(), letter.key.c_str());
    } else if (what == "fail") {
      done = letters.failed_again(letter.dlq_id, {ErrorClass::rejected, "again", "again", "", {}});
    } else {
      done = letters.resolve(letter.dlq_id);
    }
    if (!done) return done;
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const std::string_view what = argv[3];
  postgres::Connection::Options options;
  options.url = argv[1];
  postgres::Pool pool(options, 1);
  const state::DeadLetterStatements sql(argv[2]);
  state::DeadLetterTable letters(pool, sql, "g", "p");
  if (what == "store" && argc == 6) {
    DeadLetter letter;
    letter.message_id = argv[4];
    letter.key = argv[5];
    letter.body = "a body";
    letter.headers = {{"trace", "1"}};
    letter.error = {ErrorClass::rejected, "refused", "refused", "", {}};
    const DeadLetter one[] = {letter};
    const auto stored = letters.store(one);
    return stored ? 0 : failed(stored.error());
  }
  if (what == "parked") {
    const auto keys = letters.parked_keys();
    if (!keys) return failed(keys.error());
    for (const std::string& key : *keys) std::printf("%s\n", key.c_str());
    return 0;
  }
  const auto done = retry(letters, what);
  return done ? 0 : failed(done.error());
}
