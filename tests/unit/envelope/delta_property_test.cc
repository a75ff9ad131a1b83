#include <fmt/core.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "envelope/batches.h"

namespace relay::envelope {
namespace {

/// A row as the test sees it: id, region, value.
using Row = std::tuple<std::int64_t, std::string, std::int64_t>;
using Table = std::map<std::int64_t, Row>;

std::string to_json(const Row& row) {
  const auto& [id, region, value] = row;
  return fmt::format(R"({{"id": {}, "region": "{}", "v": {}}})", id, region, value);
}

Row to_row(simdjson::dom::element element) {
  return {std::int64_t(element["id"]), std::string(std::string_view(element["region"])),
          std::int64_t(element["v"])};
}

/// What a consumer reads out of one message.
struct Received {
  std::string id;
  std::string subject;
  std::string op;
  std::int64_t sequence = 0;
  std::vector<Row> deleted;
  std::vector<Row> inserted;
};

Received receive(const Message& message) {
  simdjson::dom::parser parser;
  const simdjson::padded_string body(message.body);
  const simdjson::dom::element json = parser.parse(body);
  Received received{std::string(message.id),
                    std::string(message.subject),
                    std::string(message.op),
                    std::int64_t(json["sequence"]),
                    {},
                    {}};
  if (json["op"].error() == simdjson::SUCCESS) {  // row mode
    if (!json["old"].is_null()) received.deleted.push_back(to_row(json["old"]));
    if (!json["new"].is_null()) received.inserted.push_back(to_row(json["new"]));
    return received;
  }
  for (const auto row : json["delta"]["deleted"].get_array()) {
    received.deleted.push_back(to_row(row));
  }
  for (const auto row : json["delta"]["inserted"].get_array()) {
    received.inserted.push_back(to_row(row));
  }
  const auto rows = std::int64_t(json["metadata"]["delta_rows"]);
  RC_ASSERT(rows == std::int64_t(received.deleted.size() + received.inserted.size()));
  RC_ASSERT(std::string_view(json["metadata"]["id"]) == message.id);
  return received;
}

Row random_row(std::int64_t id) {
  return {id, *rc::gen::elementOf(std::vector<std::string>{"eu", "us", "asia"}),
          *rc::gen::inRange<std::int64_t>(0, 4)};
}

/// Deltas that lead a table from one random state to the next.
struct History {
  std::vector<Table> states;  // one more than there are deltas
  std::vector<std::pair<std::vector<Row>, std::vector<Row>>> deltas;  // deleted, inserted
};

History random_history() {
  History history;
  history.states.emplace_back();
  const int length = *rc::gen::inRange(1, 5);
  for (int step = 0; step < length; ++step) {
    const Table& before = history.states.back();
    Table after;
    auto& [deleted, inserted] = history.deltas.emplace_back();
    for (std::int64_t id = 0; id < 8; ++id) {
      if (*rc::gen::inRange(0, 3) > 0) after[id] = random_row(id);
      const bool was = before.contains(id);
      const bool is = after.contains(id);
      if (was && is && before.at(id) == after.at(id)) continue;
      if (was) deleted.push_back(before.at(id));
      if (is)
        inserted.insert(*rc::gen::arbitrary<bool>() ? inserted.begin() : inserted.end(),
                        after.at(id));
    }
    history.states.push_back(std::move(after));
  }
  return history;
}

EncoderOptions random_options() {
  EncoderOptions options;
  options.row_mode = *rc::gen::arbitrary<bool>();
  options.delta_max_rows = *rc::gen::inRange(1, 8);
  options.subject_template = *rc::gen::elementOf(std::vector<std::string>{
      "{stream_table}", "{{ region }}", "{op}", "{{ region }}.{op}", "{outbox_id}.{{ v }}"});
  if (*rc::gen::arbitrary<bool>()) options.key_template = "{{ region }}";
  return options;
}

void add(Batch& batch, const History& history, std::size_t step) {
  const auto& [deleted, inserted] = history.deltas[step];
  std::vector<std::string> old_rows;
  std::vector<std::string> new_rows;
  for (const Row& row : deleted) old_rows.push_back(to_json(row));
  for (const Row& row : inserted) new_rows.push_back(to_json(row));
  batch.delta(static_cast<std::int64_t>(step) + 1, new_rows, old_rows);
}

std::vector<Received> run(const EncoderOptions& options, const History& history,
                          bool one_batch_each, std::vector<std::string> key = {"id"}) {
  std::vector<Received> received;
  const auto take = [&](Batch batch) {
    for (const Message& message : encode(options, std::move(batch)).messages) {
      RC_ASSERT(!message.refused);
      received.push_back(receive(message));
    }
  };
  Batch all("t", key);
  for (std::size_t step = 0; step < history.deltas.size(); ++step) {
    if (one_batch_each) {
      Batch one("t", key);
      add(one, history, step);
      take(std::move(one));
    } else {
      add(all, history, step);
    }
  }
  if (!one_batch_each) take(std::move(all));
  return received;
}

RC_GTEST_PROP(AnyEncoding, LosesAndDoublesNoRow, ()) {
  const History history = random_history();
  const std::vector<std::string> key =
      *rc::gen::elementOf(std::vector<std::vector<std::string>>{{"id"}, {}, {"region", "v"}});
  EncoderOptions options = random_options();
  const auto received = run(options, history, false, key);
  for (std::size_t step = 0; step < history.deltas.size(); ++step) {
    std::multiset<Row> deleted;
    std::multiset<Row> inserted;
    for (const Received& message : received) {
      if (message.sequence != static_cast<std::int64_t>(step) + 1) continue;
      deleted.insert(message.deleted.begin(), message.deleted.end());
      inserted.insert(message.inserted.begin(), message.inserted.end());
    }
    const auto& [old_rows, new_rows] = history.deltas[step];
    RC_ASSERT(deleted == std::multiset<Row>(old_rows.begin(), old_rows.end()));
    RC_ASSERT(inserted == std::multiset<Row>(new_rows.begin(), new_rows.end()));
  }
}

RC_GTEST_PROP(AnyEncoding, MakesUniqueIdsThatDoNotDependOnTheBatch, ()) {
  const History history = random_history();
  const EncoderOptions options = random_options();
  const auto together = run(options, history, false);
  const auto apart = run(options, history, true);
  RC_ASSERT(together.size() == apart.size());
  std::set<std::string> ids;  // without the hash: it must not take a hash to tell them apart
  for (std::size_t i = 0; i < together.size(); ++i) {
    RC_ASSERT(together[i].id == apart[i].id);
    RC_ASSERT(together[i].inserted == apart[i].inserted);
    ids.insert(together[i].id.substr(0, together[i].id.rfind('.')));
  }
  RC_ASSERT(ids.size() == together.size());
}

RC_GTEST_PROP(AnyEncoding, ReplayedByKeyGivesTheTable, ()) {
  const History history = random_history();
  Table table;
  for (const Received& message : run(random_options(), history, false)) {
    for (const Row& row : message.deleted) table.erase(std::get<0>(row));
    for (const Row& row : message.inserted) table[std::get<0>(row)] = row;
  }
  RC_ASSERT(table == history.states.back());
}

RC_GTEST_PROP(AnyEncoding, CutsAtTheLimit, ()) {
  const EncoderOptions options = random_options();
  for (const Received& message : run(options, random_history(), false)) {
    const auto rows = std::int64_t(message.deleted.size() + message.inserted.size());
    RC_ASSERT(rows <= std::max<std::int64_t>(options.delta_max_rows, 2));  // an update is two
  }
}

RC_GTEST_PROP(Splitting, SendsEachRowWhereItsColumnsSay, ()) {
  EncoderOptions options = random_options();
  options.subject_template = "{{ region }}.{op}";
  for (const Received& message : run(options, random_history(), false)) {
    RC_ASSERT(message.op != "delta");
    for (const auto& rows : {message.deleted, message.inserted}) {
      for (const Row& row : rows) {
        RC_ASSERT(message.subject == std::get<1>(row) + "." + message.op);
      }
    }
    RC_ASSERT((message.op == "insert") == message.deleted.empty());
    RC_ASSERT((message.op == "delete") == message.inserted.empty());
  }
}

RC_GTEST_PROP(Filtering, GivesTheChangeOfTheFilteredTable, ()) {
  const History history = random_history();
  EncoderOptions options = random_options();
  options.filter = "v >= 2 and region <> 'us'";
  Table table;
  for (const Received& message : run(options, history, false)) {
    for (const Row& row : message.deleted) RC_ASSERT(table.erase(std::get<0>(row)) == 1);
    for (const Row& row : message.inserted) table[std::get<0>(row)] = row;
  }
  Table wanted;
  for (const auto& [id, row] : history.states.back()) {
    if (std::get<2>(row) >= 2 && std::get<1>(row) != "us") wanted[id] = row;
  }
  RC_ASSERT(table == wanted);
}

}  // namespace
}  // namespace relay::envelope
