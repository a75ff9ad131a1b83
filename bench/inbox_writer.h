#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "outbox_reader.h"

namespace bench {

/// A text[] in PostgreSQL's binary form.
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

/// The headers of a message as the relay writes them: those that the programs of the drains send.
inline std::string headers_of(std::string_view id) {
  return "{\"pgtrickle-id\":\"" + std::string(id) +
         "\",\"pgtrickle-op\":\"insert\",\"pgtrickle-stream-table\":\"orders\","
         "\"pgtrickle-outbox-id\":\"1\"}";
}

/// Writes messages into an inbox of the schema pgtrickle, one INSERT for each batch of `batch`,
/// while the next batch is read.
class InboxWriter {
 public:
  InboxWriter(const char* url, const std::string& table, int batch)
      : connection_(connect(url)), batch_(batch) {
    const std::string insert =
        "insert into pgtrickle.\"" + table +
        "\" (event_id, event_type, source, aggregate_id, payload, headers) "
        "select i, 'insert', 'limit', k, p::jsonb, h::jsonb from unnest($1::text[], $2::text[], "
        "$3::text[], $4::text[]) x (i, k, p, h) on conflict (event_id) do nothing "
        "returning event_id";
    const Rows prepared(PQprepare(connection_.get(), "write", insert.c_str(), 4, nullptr));
    if (PQresultStatus(prepared.get()) != PGRES_COMMAND_OK) fail();
  }

  void add(std::string_view id, std::string_view key, std::string_view payload,
           std::string_view headers) {
    columns_[0].add(id);
    columns_[1].add(key);
    columns_[2].add(payload);
    columns_[3].add(headers);
    ++added_;
  }
  bool full() const { return added_ == batch_; }

  /// Begins to write what was added; `acknowledge` is called once that is committed.
  void send(std::function<void()> acknowledge) {
    finish();
    if (std::exchange(added_, 0) == 0) return;
    std::array<const char*, 4> values{};
    std::array<int, 4> lengths{};
    for (std::size_t i = 0; i < 4; ++i) {
      sent_[i] = columns_[i].take();
      values[i] = sent_[i].data();
      lengths[i] = static_cast<int>(sent_[i].size());
    }
    constexpr std::array<int, 4> kBinary{1, 1, 1, 1};
    if (PQsendQueryPrepared(connection_.get(), "write", 4, values.data(), lengths.data(),
                            kBinary.data(), 0) == 0 ||
        PQflush(connection_.get()) < 0) {
      fail();
    }
    under_way_ = std::move(acknowledge);
  }

  /// For who waits by itself: what is to be read when the database answers, and whether it has.
  int socket() const { return PQsocket(connection_.get()); }
  bool answered() {
    if (PQconsumeInput(connection_.get()) == 0) fail();
    return PQisBusy(connection_.get()) == 0;
  }

  /// Waits until what was sent is written.
  void finish() {
    if (!under_way_) return;
    while (const Rows rows{PQgetResult(connection_.get())}) {
      if (PQresultStatus(rows.get()) != PGRES_TUPLES_OK) fail();
    }
    std::exchange(under_way_, nullptr)();
  }

 private:
  [[noreturn]] void fail() { die("writing", PQerrorMessage(connection_.get())); }

  Connection connection_;
  const int batch_;
  int added_ = 0;
  std::array<TextArray, 4> columns_;
  std::array<std::string, 4> sent_;
  std::function<void()> under_way_;  // the acknowledgement of what was sent
};

}  // namespace bench
