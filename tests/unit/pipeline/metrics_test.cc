#include "pipeline/metrics.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace relay {
namespace {

TEST(Metrics, HaveNamesThatBeginWithThePrefix) {
  Metrics metrics("postgres_stream_");
  metrics.pipeline("orders")->delivered.Increment(3);
  metrics.pool_connections().Set(2);
  metrics.outbox_problem("orders").Set(1);
  std::istringstream text(metrics.text());
  int names = 0;
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with("# HELP ")) continue;
    ++names;
    EXPECT_TRUE(line.starts_with("# HELP postgres_stream_")) << line;
  }
  EXPECT_GT(names, 20);
  EXPECT_NE(
      metrics.text().find("\npostgres_stream_messages_delivered_total{pipeline=\"orders\"} 3"),
      std::string::npos);
}

TEST(Metrics, ShowTheNumbersOfSourceAndSinkForAsLongAsTheyReportThem) {
  Metrics metrics("postgres_stream_");
  const auto orders = metrics.pipeline("orders");
  const auto shows = [&](const std::string& line) {
    return metrics.text().find("\n" + line + "\n") != std::string::npos;
  };
  PipelineReport report;
  report.source.emplace().numbers = {{"backlog_transactions", "Transactions in the backlog", 7}};
  report.sink.emplace().numbers = {{"memory_messages", "Messages counted", 1}};
  orders->show_ends(report);
  metrics.pipeline("invoices")->show_ends(report);
  EXPECT_TRUE(shows("postgres_stream_backlog_transactions{pipeline=\"orders\"} 7"));
  EXPECT_TRUE(shows("postgres_stream_memory_messages{pipeline=\"orders\"} 1"));

  report.source->numbers[0].value = 6;
  report.sink.reset();
  orders->show_ends(report);
  EXPECT_TRUE(shows("postgres_stream_backlog_transactions{pipeline=\"orders\"} 6"));
  EXPECT_FALSE(shows("postgres_stream_memory_messages{pipeline=\"orders\"} 1"));

  metrics.drop("orders");
  EXPECT_FALSE(shows("postgres_stream_backlog_transactions{pipeline=\"orders\"} 6"));
  EXPECT_TRUE(shows("postgres_stream_backlog_transactions{pipeline=\"invoices\"} 7"));
  metrics.pipeline("invoices")->show_ends({});
  EXPECT_EQ(metrics.text().find("backlog_transactions{"), std::string::npos);
}

}  // namespace
}  // namespace relay
