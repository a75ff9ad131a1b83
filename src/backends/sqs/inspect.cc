// What `check` sees of sinks and sources: attributes of the queue are read, nothing else.

#include <fmt/core.h>

#include <utility>

#include "backends/sqs/service.h"
#include "backends/sqs/sink.h"
#include "backends/sqs/source.h"
#include "core/text.h"

namespace relay::sqs {

namespace {

Inspection look(const QueueOptions& options, std::stop_token stop) {
  Service service(options);
  Inspection found =
      Inspection::of(service.open(Deadline::after(options.timeout), std::move(stop)));
  for (Error& problem : found.problems) {
    if (problem.code != "QueueDoesNotExist") continue;
    problem.remedy =
        fmt::format("aws sqs create-queue --queue-name {}{}; or correct queue_url",
                    shell_word(options.queue), options.fifo ? " --attributes FifoQueue=true" : "");
  }
  return found;
}

}  // namespace

Inspection SqsSink::inspect(const std::optional<std::string>&, std::stop_token stop) {
  return look(options_.queue, std::move(stop));
}

Inspection SqsSource::inspect(std::stop_token stop) {
  return look(options_.queue, std::move(stop));
}

std::vector<Claim> SqsSource::claims() const {
  return {{.what = fmt::format("the SQS queue '{}'", options_.queue.queue),
           .servers = {options_.queue.queue_url},
           .effect = "each of them gets some of the messages only",
           .remedy = "give each pipeline a queue of its own (an SNS topic fills several)",
           .shared = true}};
}

}  // namespace relay::sqs
