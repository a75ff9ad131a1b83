// The shortest way from an outbox into an inbox: one INSERT a batch, while the next batch is read.
//   limit_inbox POSTGRES_URL OUTBOX_TABLE BATCH INBOX_URL INBOX_TABLE ID_PREFIX
// INBOX_TABLE is in the schema pgtrickle.
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "outbox_reader.h"

namespace {

// A text[] in PostgreSQL's binary form.
class TextArray {
 public:
  void add(std::string_view text) {
    put(static_cast<std::uint32_t>(text.size()));
    bytes_ += text;
    ++count_;
  }
  std::string take() {
    const std::string elements = std::exchange(bytes_, {});
    // Dimensions, no NULLs, element type text, size, lower bound.
    for (const std::uint32_t word : {1u, 0u, 25u, std::exchange(count_, 0), 1u}) put(word);
    return std::exchange(bytes_, {}) + elements;
  }
  bool empty() const { return count_ == 0; }

 private:
  void put(std::uint32_t word) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes_ += static_cast<char>(word >> shift);
  }
  std::string bytes_;
  std::uint32_t count_ = 0;
};

class Writer {
 public:
  Writer(const char* url, const std::string& table) : connection_(bench::connect(url)) {
    const std::string insert =
        "insert into pgtrickle.\"" + table +
        "\" (event_id, event_type, source, aggregate_id, payload, headers) "
        "select i, 'insert', 'limit', k, p::jsonb, h::jsonb from unnest($1::text[], $2::text[], "
        "$3::text[], $4::text[]) x (i, k, p, h) on conflict (event_id) do nothing "
        "returning event_id";
    const bench::Rows prepared(PQprepare(connection_.get(), "write", insert.c_str(), 4, nullptr));
    if (PQresultStatus(prepared.get()) != PGRES_COMMAND_OK) fail();
  }

  void add(const std::string& id, const char* outbox_id, std::string_view payload) {
    columns_[0].add(id);
    columns_[1].add(outbox_id);
    columns_[2].add(payload);
    columns_[3].add("{\"pgtrickle-outbox-id\":\"" + std::string(outbox_id) + "\"}");
  }

  // Sends what was added, once what was sent before is written.
  void send() {
    finish();
    if (columns_[0].empty()) return;
    std::array<const char*, 4> values{};
    std::array<int, 4> lengths{};
    for (std::size_t i = 0; i < 4; ++i) {
      sent_[i] = columns_[i].take();
      values[i] = sent_[i].data();
      lengths[i] = static_cast<int>(sent_[i].size());
    }
    constexpr std::array<int, 4> kBinary{1, 1, 1, 1};
    if (PQsendQueryPrepared(connection_.get(), "write", 4, values.data(), lengths.data(),
                            kBinary.data(), 0) == 0) {
      fail();
    }
    under_way_ = true;
  }

  void finish() {
    if (!std::exchange(under_way_, false)) return;
    while (const bench::Rows rows{PQgetResult(connection_.get())}) {
      if (PQresultStatus(rows.get()) != PGRES_TUPLES_OK) fail();
    }
  }

 private:
  [[noreturn]] void fail() { bench::die("writing", PQerrorMessage(connection_.get())); }

  bench::Connection connection_;
  std::array<TextArray, 4> columns_;
  std::array<std::string, 4> sent_;
  bool under_way_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_inbox.cc");
  const bench::Connection connection = bench::connect(argv[1]);
  Writer writer(argv[4], argv[5]);
  const int batch = std::atoi(argv[3]);
  int added = 0;
  bench::read_outbox(connection.get(), argv[2], batch,
                     [&](const char* id, const char* payload, int length) {
                       writer.add(std::string(argv[6]) + ":" + id, id,
                                  {payload, static_cast<std::size_t>(length)});
                       if (++added % batch == 0) writer.send();
                     });
  writer.send();
  writer.finish();
  return 0;
}
