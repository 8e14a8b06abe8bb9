// Redpanda Connect's engine with a Kafka input and output on franz-go, which its own have, too, but are not open.
package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

func seeds(config *service.ParsedConfig) (kgo.Opt, string, error) {
	bootstrap, err := config.FieldString("bootstrap")
	if err != nil {
		return nil, "", err
	}
	topic, err := config.FieldString("topic")
	return kgo.SeedBrokers(strings.Split(bootstrap, ",")...), topic, err
}

type waiting struct {
	record *kgo.Record
	done   bool
}

// A partition's records that were read and are not all acknowledged, in their order; nil once it is another's.
type partition struct{ records []*waiting }

// input reads batches from all partitions, and commits what is acknowledged up to the first record that is not.
type input struct {
	options    []kgo.Opt
	count      int
	period     time.Duration
	client     *kgo.Client
	mutex      sync.Mutex
	partitions map[int32]*partition
}

func (in *input) Connect(context.Context) error {
	client, err := kgo.NewClient(append(in.options, kgo.OnPartitionsRevoked(in.revoked), kgo.OnPartitionsLost(in.lost))...)
	in.client, in.partitions = client, map[int32]*partition{}
	return err
}

func (in *input) revoked(ctx context.Context, client *kgo.Client, topics map[string][]int32) {
	in.lost(ctx, client, topics)
	_ = client.CommitMarkedOffsets(ctx) // what is not committed is read again: at least once
}

func (in *input) lost(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	for _, numbers := range topics {
		for _, number := range numbers {
			if gone := in.partitions[number]; gone != nil {
				gone.records = nil
				delete(in.partitions, number)
			}
		}
	}
}

func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	fetched := in.client.PollRecords(ctx, in.count)
	if fetched.IsClientClosed() {
		return nil, nil, service.ErrNotConnected
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	records := fetched.Records()
	if len(records) > 0 {
		more, cancel := context.WithTimeout(ctx, in.period)
		for len(records) < in.count && more.Err() == nil {
			records = append(records, in.client.PollRecords(more, in.count-len(records)).Records()...)
		}
		cancel()
	}
	batch := make(service.MessageBatch, len(records))
	for i, record := range records {
		batch[i] = service.NewMessage(record.Value)
	}
	acknowledge := in.read(records)
	return batch, func(_ context.Context, err error) error {
		if err == nil {
			acknowledge()
		}
		return nil
	}, nil
}

func (in *input) read(records []*kgo.Record) func() {
	in.mutex.Lock()
	defer in.mutex.Unlock()
	all, touched := make([]*waiting, len(records)), map[*partition]bool{}
	for i, record := range records {
		its := in.partitions[record.Partition]
		if its == nil {
			its = &partition{}
			in.partitions[record.Partition] = its
		}
		all[i] = &waiting{record: record}
		its.records = append(its.records, all[i])
		touched[its] = true
	}
	return func() {
		in.mutex.Lock()
		defer in.mutex.Unlock()
		for _, each := range all {
			each.done = true
		}
		for its := range touched {
			for len(its.records) > 0 && its.records[0].done {
				in.client.MarkCommitRecords(its.records[0].record)
				its.records = its.records[1:]
			}
		}
	}
}

func (in *input) Close(ctx context.Context) error {
	if in.client == nil {
		return nil
	}
	err := in.client.CommitMarkedOffsets(ctx)
	in.client.Close()
	return err
}

func newInput(config *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
	brokers, topic, err := seeds(config)
	group, groupErr := config.FieldString("group")
	count, countErr := config.FieldInt("count")
	period, periodErr := config.FieldDuration("period")
	commit, commitErr := config.FieldDuration("commit_period")
	session, sessionErr := config.FieldDuration("session_timeout")
	if err := errors.Join(err, groupErr, countErr, periodErr, commitErr, sessionErr); err != nil {
		return nil, err
	}
	in := &input{count: count, period: period, options: []kgo.Opt{
		brokers,
		kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(commit),
		kgo.SessionTimeout(session),
		kgo.HeartbeatInterval(session / 4),
	}}
	return service.AutoRetryNacksBatched(in), nil
}

// output publishes a batch, and has it acknowledged when all of it is at all replicas.
type output struct {
	options []kgo.Opt
	client  *kgo.Client
}

func (out *output) Connect(context.Context) (err error) {
	out.client, err = kgo.NewClient(out.options...)
	return err
}

func (out *output) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	records := make([]*kgo.Record, len(batch))
	for i, message := range batch {
		value, err := message.AsBytes()
		if err != nil {
			return err
		}
		records[i] = &kgo.Record{Value: value}
	}
	return out.client.ProduceSync(ctx, records...).FirstErr()
}

func (out *output) Close(context.Context) error {
	if out.client != nil {
		out.client.Close()
	}
	return nil
}

func newOutput(config *service.ParsedConfig, _ *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
	none := service.BatchPolicy{}
	brokers, topic, err := seeds(config)
	inFlight, inFlightErr := config.FieldMaxInFlight()
	if err := errors.Join(err, inFlightErr); err != nil {
		return nil, none, 0, err
	}
	linger := kgo.ProducerLinger(2 * time.Millisecond)
	return &output{options: []kgo.Opt{brokers, kgo.DefaultProduceTopic(topic), linger}}, none, inFlight, nil
}

func main() {
	where := []*service.ConfigField{service.NewStringField("bootstrap"), service.NewStringField("topic")}
	reading := service.NewConfigSpec().Fields(where...).Fields(
		service.NewStringField("group"),
		service.NewIntField("count"),
		service.NewDurationField("period"),
		service.NewDurationField("commit_period"),
		service.NewDurationField("session_timeout"),
	)
	writing := service.NewConfigSpec().Fields(where...).Field(service.NewOutputMaxInFlightField())
	service.MustRegisterBatchInput("peers_kafka", reading, newInput)
	service.MustRegisterBatchOutput("peers_kafka", writing, newOutput)
	service.RunCLI(context.Background())
}
