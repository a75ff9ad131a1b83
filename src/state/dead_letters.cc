#include "state/dead_letters.h"

#include <algorithm>
#include <utility>

#include "core/digest.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::state {

namespace {

using postgres::Param;

constexpr std::chrono::seconds kTimeout{10};

// What the message itself says of these is kept among its headers, under the names that they are
// sent with, so that the table shows it and a retry is the same message.
constexpr std::string_view kStreamTable = "pgtrickle-stream-table";
constexpr std::string_view kFullRefresh = "pgtrickle-full-refresh";
constexpr std::string_view kTombstone = "pgtrickle-tombstone";
// Says that ${...} in subject and headers stand for secrets, and $$ for $.
constexpr std::string_view kSealed = "pgtrickle-sealed";

int hex_value(char digit) {
  return digit <= '9' ? digit - '0' : digit - 'a' + 10;
}

std::string from_hex(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(hex_value(text[i]) * 16 + hex_value(text[i + 1]));
  }
  return bytes;
}

/// Bytes of the character that `text` begins with; 0: it is NUL, or not UTF-8 (RFC 3629).
std::size_t character_length(std::string_view text) {
  const auto byte = [text](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  struct Form {
    unsigned first_low, first_high, second_low, second_high;
    std::size_t length;
  };
  constexpr Form kForms[] = {{0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
                             {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3},
                             {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
                             {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
  if (byte(0) < 0x80) return byte(0) == 0 ? 0 : 1;
  for (const Form& form : kForms) {
    if (byte(0) < form.first_low || byte(0) > form.first_high) continue;
    bool good = byte(1) >= form.second_low && byte(1) <= form.second_high;
    for (std::size_t i = 2; i < form.length; ++i) good = good && (byte(i) & 0xC0) == 0x80;
    return good ? form.length : 0;
  }
  return 0;
}

/// Text that PostgreSQL takes: what is not UTF-8, or NUL, becomes U+FFFD.
std::string legal(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    clean += length > 0 ? text.substr(0, length) : std::string_view("\xEF\xBF\xBD");
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return clean;
}

std::string headers_json(const DeadLetter& letter) {
  std::string json = "{";
  const auto add = [&json](std::string_view name, std::string_view value) {
    if (json.size() > 1) json += ',';
    append_json_string(json, legal(name));
    json += ':';
    append_json_string(json, legal(value));
  };
  if (!letter.stream_table.empty()) add(kStreamTable, letter.stream_table);
  if (letter.full_refresh) add(kFullRefresh, "true");
  if (letter.tombstone) add(kTombstone, "true");
  if (letter.sealed) add(kSealed, "true");
  for (const auto& [name, value] : letter.headers) {
    // Of a message's own, it would have its text taken for references.
    if (name != kSealed) add(name, value);
  }
  return json + "}";
}

ErrorClass class_named(std::string_view name) {
  for (const ErrorClass one : {ErrorClass::transient, ErrorClass::throttled,
                               ErrorClass::misconfigured, ErrorClass::fenced}) {
    if (name == to_string(one)) return one;
  }
  return ErrorClass::rejected;
}

DeadLetter letter_of(const postgres::Rows& rows, int row) {
  DeadLetter letter;
  letter.dlq_id = rows.integer(row, 0);
  letter.message_id = rows.text(row, 1);
  letter.subject = rows.text(row, 2);
  letter.key = rows.text(row, 3);
  letter.op = rows.text(row, 4);
  letter.body = from_hex(rows.text(row, 5));
  letter.content_type = rows.text(row, 6);
  letter.outbox_id = rows.integer(row, 7);
  letter.attempts = static_cast<int>(rows.integer(row, 8));
  letter.error.error_class = class_named(rows.text(row, 9));
  letter.error.code = rows.text(row, 10);
  letter.error.message = rows.text(row, 11);
  letter.follows = static_cast<DeadLetter::Follows>(rows.integer(row, 12));
  return letter;
}

void add_header(DeadLetter& letter, std::string_view name, std::string_view value) {
  if (name == kStreamTable) {
    letter.stream_table = value;
  } else if (name == kFullRefresh) {
    letter.full_refresh = value == "true";
  } else if (name == kTombstone) {
    letter.tombstone = value == "true";
  } else if (name == kSealed) {
    letter.sealed = value == "true";
  } else {
    letter.headers.emplace_back(name, value);
  }
}

}  // namespace

Result<void> store_dead_letters(postgres::Connection& connection, const DeadLetterStatements& sql,
                                const std::string& group, const std::string& pipeline,
                                std::span<const DeadLetter> letters, Deadline deadline,
                                std::stop_token stop) {
  for (const DeadLetter& letter : letters) {
    const auto stored = connection.query(
        sql.store,
        {group, pipeline, legal(letter.message_id), legal(letter.subject), legal(letter.key),
         legal(letter.op), "\\x" + hex(letter.body), legal(letter.content_type),
         headers_json(letter), std::to_string(letter.outbox_id),
         std::string(to_string(letter.error.error_class)), legal(letter.error.code),
         legal(secrets::masked(letter.error.message)), std::to_string(letter.attempts)},
        deadline, stop);
    if (!stored) return fail(stored.error().in_context("storing a dead letter"));
  }
  return {};
}

DeadLetterTable::DeadLetterTable(postgres::Pool& pool, const DeadLetterStatements& sql,
                                 std::string group, std::string pipeline)
    : pool_(pool), sql_(sql), group_(std::move(group)), pipeline_(std::move(pipeline)) {}

Result<postgres::Rows> DeadLetterTable::run(std::string_view sql,
                                            std::initializer_list<Param> params) {
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = pool_.borrow(deadline, {});
  if (!lease) return fail(lease.error());
  return (*lease)->query(sql, params, deadline, {});
}

Result<void> DeadLetterTable::store(std::span<const DeadLetter> letters) {
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = pool_.borrow(deadline, {});
  if (!lease) return fail(lease.error());
  postgres::Connection& connection = **lease;
  auto begun = connection.script("begin; set local synchronous_commit to on", deadline, {});
  if (!begun) return begun;
  // A failure leaves the transaction open, and the pool closes the session.
  auto stored = store_dead_letters(connection, sql_, group_, pipeline_, letters, deadline, {});
  if (!stored) return stored;
  return connection.script("commit", deadline, {});
}

Result<std::vector<DeadLetter>> DeadLetterTable::take_retries(std::size_t limit) {
  const auto rows = run(sql_.take, {group_, pipeline_, std::to_string(limit)});
  if (!rows) return fail(rows.error());
  std::vector<DeadLetter> letters;
  std::string ids = "{";
  for (int row = 0; row < rows->size(); ++row) {
    letters.push_back(letter_of(*rows, row));
    if (row > 0) ids += ',';
    ids += rows->text(row, 0);
  }
  if (letters.empty()) return letters;
  const auto headers = run(sql_.take_headers, {ids + "}"});
  if (!headers) return fail(headers.error());
  auto letter = letters.begin();
  for (int row = 0; row < headers->size(); ++row) {
    while (letter->dlq_id != headers->integer(row, 0)) ++letter;
    add_header(*letter, headers->text(row, 1), headers->text(row, 2));
  }
  return letters;
}

Result<void> DeadLetterTable::resolve(std::int64_t dlq_id) {
  const auto done = run(sql_.resolve, {std::to_string(dlq_id)});
  if (!done) return fail(done.error());
  return {};
}

Result<void> DeadLetterTable::failed_again(std::int64_t dlq_id, const Error& error) {
  const auto done =
      run(sql_.fail_again, {std::to_string(dlq_id), std::string(to_string(error.error_class)),
                            legal(error.code), legal(secrets::masked(error.message))});
  if (!done) return fail(done.error());
  return {};
}

Result<std::set<std::string>> DeadLetterTable::parked_keys() {
  const auto rows = run(sql_.parked_keys, {group_, pipeline_});
  if (!rows) return fail(rows.error());
  std::set<std::string> keys;
  for (int row = 0; row < rows->size(); ++row) keys.emplace(rows->text(row, 0));
  return keys;
}

}  // namespace relay::state
