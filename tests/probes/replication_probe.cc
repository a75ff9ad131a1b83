// Streams from a logical slot and prints what comes, one JSON object a line.
//   replication_probe URL system
//   replication_probe URL create SLOT [temporary] [failover]
//   replication_probe URL drop SLOT
//   replication_probe URL stream SLOT PUBLICATION[,PUBLICATION] [messages] [binary] [confirm]
// `stream` runs until SIGTERM, and confirms each commit once it is printed if `confirm` is given.
// `create` prints the slot and stays until its standard input ends, so that the snapshot can be
// used. An error is printed as {"error": ...}, and the exit code is 1.

#include <fmt/core.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <stop_token>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "core/text.h"
#include "postgres/pgoutput.h"
#include "postgres/replication.h"

namespace {

using namespace relay;
using namespace relay::postgres;
using namespace std::chrono_literals;

void print(std::string line) {
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

int failed(const Error& error) {
  print(fmt::format(R"({{"error":{},"code":{},"class":{},"remedy":{}}})",
                    json_string(error.message), json_string(error.code),
                    json_string(to_string(error.error_class)), json_string(error.remedy)));
  return 1;
}

std::string name_of(const pgoutput::Relation* relation) {
  return json_string(relation->schema + "." + relation->name);
}

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

std::string row_of(const pgoutput::Relation* relation, pgoutput::Tuple row) {
  std::string out = "{";
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i > 0) out += ',';
    out += json_string(relation->columns[i].name) + ":";
    switch (row[i].kind) {
      case pgoutput::Value::Kind::null:
        out += "null";
        break;
      case pgoutput::Value::Kind::unchanged:
        out += R"({"unchanged":true})";
        break;
      case pgoutput::Value::Kind::text:
        out += json_string(row[i].data);
        break;
      case pgoutput::Value::Kind::binary:
        out += fmt::format(R"({{"binary":"{}"}})", hex(row[i].data));
        break;
    }
  }
  return out + "}";
}

std::string before(pgoutput::Before known) {
  return known == pgoutput::Before::none ? "none" : known == pgoutput::Before::key ? "key" : "row";
}

struct Printer {
  std::string operator()(const pgoutput::Begin& m) const {
    return fmt::format(R"("kind":"begin","xid":{},"lsn":"{}")", m.xid, to_string(m.final_lsn));
  }
  std::string operator()(const pgoutput::Commit& m) const {
    return fmt::format(R"("kind":"commit","lsn":"{}","end":"{}","at":{})", to_string(m.lsn),
                       to_string(m.end_lsn), m.committed_at.time_since_epoch().count());
  }
  std::string operator()(const pgoutput::Origin& m) const {
    return R"("kind":"origin","name":)" + json_string(m.name);
  }
  std::string operator()(const pgoutput::Relation* m) const {
    std::string columns;
    for (const auto& column : m->columns) {
      columns += fmt::format(R"({}{{"name":{},"type":{},"key":{}}})", columns.empty() ? "" : ",",
                             json_string(column.name), column.type, column.key);
    }
    return fmt::format(R"("kind":"relation","table":{},"identity":"{}","columns":[{}])", name_of(m),
                       m->identity, columns);
  }
  std::string operator()(const pgoutput::Type& m) const {
    return R"("kind":"type","name":)" + json_string(m.name);
  }
  std::string operator()(const pgoutput::Insert& m) const {
    return fmt::format(R"("kind":"insert","table":{},"new":{})", name_of(m.relation),
                       row_of(m.relation, m.row));
  }
  std::string operator()(const pgoutput::Update& m) const {
    return fmt::format(R"("kind":"update","table":{},"before":"{}","old":{},"new":{})",
                       name_of(m.relation), before(m.before), row_of(m.relation, m.old_row),
                       row_of(m.relation, m.row));
  }
  std::string operator()(const pgoutput::Delete& m) const {
    return fmt::format(R"("kind":"delete","table":{},"before":"{}","old":{})", name_of(m.relation),
                       before(m.before), row_of(m.relation, m.old_row));
  }
  std::string operator()(const pgoutput::Truncate& m) const {
    std::string tables;
    for (const auto* relation : m.relations)
      tables += (tables.empty() ? "" : ",") + name_of(relation);
    return fmt::format(R"("kind":"truncate","tables":[{}],"cascade":{},"restart":{})", tables,
                       m.cascade, m.restart_identity);
  }
  std::string operator()(const pgoutput::Emitted& m) const {
    return fmt::format(R"("kind":"message","transactional":{},"prefix":{},"content":{})",
                       m.transactional, json_string(m.prefix), json_string(m.content));
  }
};

int stream(ReplicationConnection& session, const std::vector<std::string>& arguments, bool confirm,
           std::stop_token stop) {
  std::vector<std::string> publications;
  for (std::string_view rest = arguments.at(1); !rest.empty();) {
    const auto comma = std::min(rest.find(','), rest.size());
    publications.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  const auto given = [&](std::string_view word) {
    return std::find(arguments.begin() + 2, arguments.end(), word) != arguments.end();
  };
  ReplicationConnection::StreamOptions options;
  options.publications = publications;
  options.messages = given("messages");
  options.binary = given("binary");
  if (auto begun = session.start(arguments.at(0), options, Deadline::after(10s), stop); !begun) {
    return failed(begun.error());
  }
  print(R"({"kind":"streaming"})");
  pgoutput::Decoder decoder;
  Lsn received;
  Lsn confirmed;
  while (!stop.stop_requested()) {
    const auto event = session.next(1s, stop);
    if (!event) return stop.stop_requested() ? 0 : failed(event.error());
    bool report = std::holds_alternative<std::monostate>(*event);
    if (const auto* keepalive = std::get_if<ReplicationConnection::Keepalive>(&*event)) {
      report = keepalive->reply_requested;
    } else if (const auto* data = std::get_if<ReplicationConnection::Data>(&*event)) {
      received = std::max(received, data->start);
      const auto message = decoder.decode(data->message);
      if (!message) return failed(message.error());
      print("{" + std::visit(Printer{}, *message) + "}");
      if (const auto* commit = std::get_if<pgoutput::Commit>(&*message)) {
        received = std::max(received, commit->end_lsn);
        if (confirm) confirmed = commit->end_lsn;
        report = confirm;
      }
    }
    if (!report) continue;
    if (auto sent = session.report(received, confirmed, Deadline::after(10s), stop); !sent) {
      return stop.stop_requested() ? 0 : failed(sent.error());
    }
  }
  return 0;
}

int run(const std::vector<std::string>& arguments, std::stop_token stop) {
  Connection::Options options;
  options.url = arguments.at(0);
  options.application_name = "replication_probe";
  auto session = ReplicationConnection::open(options, stop);
  if (!session) return failed(session.error());
  const std::vector<std::string> rest(arguments.begin() + 2, arguments.end());
  const auto given = [&](std::string_view word) {
    return std::find(rest.begin(), rest.end(), word) != rest.end();
  };
  const Deadline deadline = Deadline::after(60s);
  if (arguments.at(1) == "system") {
    const auto system = (*session)->identify(deadline, stop);
    if (!system) return failed(system.error());
    print(fmt::format(R"({{"identifier":"{}","timeline":{},"position":"{}"}})", system->identifier,
                      system->timeline, to_string(system->position)));
    return 0;
  }
  if (arguments.at(1) == "create") {
    const auto slot = (*session)->create_slot(rest.at(0), {given("temporary"), given("failover")},
                                              deadline, stop);
    if (!slot) return failed(slot.error());
    print(fmt::format(R"({{"snapshot":"{}","point":"{}"}})", slot->snapshot,
                      to_string(slot->consistent_point)));
    while (std::getchar() != EOF) continue;
    return 0;
  }
  if (arguments.at(1) == "drop") {
    const auto dropped = (*session)->drop_slot(rest.at(0), deadline, stop);
    return dropped ? 0 : failed(dropped.error());
  }
  return stream(**session, rest, given("confirm"), stop);
}

}  // namespace

int main(int argc, char** argv) {
  // SIGTERM is taken by a thread of its own, which asks for a stop.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::stop_source stop;
  std::thread([signals, stop]() mutable {
    int number = 0;
    sigwait(&signals, &number);
    stop.request_stop();
  }).detach();
  return run({argv + 1, argv + argc}, stop.get_token());
}
