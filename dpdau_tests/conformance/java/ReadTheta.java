import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.datasketches.memory.Memory;
import org.apache.datasketches.theta.HashIterator;
import org.apache.datasketches.theta.SetOperation;
import org.apache.datasketches.theta.Sketch;
import org.apache.datasketches.theta.Sketches;
import org.apache.datasketches.theta.Union;

/** What Apache DataSketches for Java reads in Theta sketches: a line of JSON a file, and one for their union. */
public final class ReadTheta {
  public static void main(String[] files) throws Exception {
    Union union = SetOperation.builder().setNominalEntries(1 << 20).buildUnion();
    for (String file : files) {
      Memory bytes = Memory.wrap(Files.readAllBytes(Path.of(file)));
      print(Sketches.wrapSketch(bytes));
      union.union(bytes);
    }
    print(union.getResult(true, null));
  }

  private static void print(Sketch sketch) {
    long sum = 0; // of the hashes, as 64 bits
    for (HashIterator hashes = sketch.iterator(); hashes.next(); ) {
      sum += hashes.get();
    }
    System.out.printf(
        "{\"retained\": %d, \"theta\": %d, \"estimate\": \"%s\", \"sum\": \"%s\"}%n",
        sketch.getRetainedEntries(true), sketch.getThetaLong(), sketch.getEstimate(), Long.toUnsignedString(sum));
  }
}
