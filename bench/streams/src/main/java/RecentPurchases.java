import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * The peer "Kafka Streams": each user's last 20 purchases in a RocksDB store with a changelog. All
 * settings except the commit interval are defaults (at least once, caching on). A purchase is
 * stored in a plain binary format, which is faster than JSON.
 */
public final class RecentPurchases {
  private static final int KEEP = 20;

  private static final ObjectReader EVENTS =
      new ObjectMapper()
          .setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
          .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
          .readerFor(Event.class);

  record Event(Purchase data) {}

  record Purchase(
      String orderId, String productName, String price, String orderedAt, String paymentMethod) {}

  public static void main(String[] args) {
    String group = System.getenv("BENCH_GROUP");
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("BENCH_KAFKA"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("BENCH_FOLDER"));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, System.getenv("BENCH_THREADS"));
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 500);
    // Otherwise a restart waits 45 s for the session timeout of the stopped process.
    settings.put("internal.leave.group.on.close", true);

    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(System.getenv("BENCH_TOPIC"), Consumed.with(Serdes.String(), Serdes.ByteArray()))
        .mapValues(RecentPurchases::decode)
        .groupByKey(Grouped.keySerde(Serdes.String()))
        .aggregate(
            () -> List.<Purchase>of(),
            (user, purchase, recent) -> add(recent, purchase),
            Materialized.<String, List<Purchase>, KeyValueStore<Bytes, byte[]>>as("by-user")
                .withKeySerde(Serdes.String())
                .withValueSerde(purchases()));

    KafkaStreams streams = new KafkaStreams(builder.build(settings), settings);
    streams.setGlobalStateRestoreListener(new Restores());
    // bench/recovery.py waits for the line about RUNNING, and reads the line of Restores.
    streams.setStateListener((now, before) -> System.out.println("state " + now));
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
    streams.start();
  }

  /** Prints the number of restored records, and the seconds since the first restore began. */
  private static final class Restores implements StateRestoreListener {
    private long began;
    private long records;

    @Override
    public synchronized void onRestoreStart(TopicPartition partition, String store, long from, long to) {
      began = began == 0 ? System.nanoTime() : began;
    }

    @Override
    public void onBatchRestored(TopicPartition partition, String store, long offset, long count) {}

    @Override
    public synchronized void onRestoreEnd(TopicPartition partition, String store, long count) {
      records += count;
      System.out.printf(
          Locale.ROOT, "restored %d records in %.2f s%n", records, (System.nanoTime() - began) / 1e9);
    }
  }

  private static Purchase decode(byte[] value) {
    try {
      return EVENTS.<Event>readValue(value).data();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static List<Purchase> add(List<Purchase> recent, Purchase purchase) {
    List<Purchase> next = new ArrayList<>(KEEP);
    next.addAll(recent.size() < KEEP ? recent : recent.subList(1, recent.size()));
    next.add(purchase);
    return next;
  }

  private static Serde<List<Purchase>> purchases() {
    return Serdes.serdeFrom((topic, recent) -> write(recent), (topic, bytes) -> read(bytes));
  }

  private static byte[] write(List<Purchase> recent) {
    if (recent == null) {
      return null;
    }
    ByteArrayOutputStream bytes = new ByteArrayOutputStream(100 * recent.size() + 4);
    try (DataOutputStream output = new DataOutputStream(bytes)) {
      output.writeInt(recent.size());
      for (Purchase purchase : recent) {
        output.writeUTF(purchase.orderId());
        output.writeUTF(purchase.productName());
        output.writeUTF(purchase.price());
        output.writeUTF(purchase.orderedAt());
        output.writeUTF(purchase.paymentMethod());
      }
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
    return bytes.toByteArray();
  }

  private static List<Purchase> read(byte[] bytes) {
    if (bytes == null) {
      return null;
    }
    try (DataInputStream input = new DataInputStream(new ByteArrayInputStream(bytes))) {
      int size = input.readInt();
      List<Purchase> recent = new ArrayList<>(size);
      for (int i = 0; i < size; i++) {
        recent.add(
            new Purchase(
                input.readUTF(), input.readUTF(), input.readUTF(), input.readUTF(), input.readUTF()));
      }
      return recent;
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
