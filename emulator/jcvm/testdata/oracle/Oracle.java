import java.lang.reflect.Method;

/** Prints what the host's Java virtual machine makes of the cases of ops.Ops. */
public class Oracle {
    static final int[] A = {0, 1, -1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, -128, 255, 1000, -30000, 30000, -32768,
        100000, 100002, -2000000000, 2000000000, 2147483647, -2147483648};
    static final int[] B = {0, 1, -1, 3, 16, 33, -7, 1234, -32768, 70000, -2147483648};

    public static void main(String[] args) throws Exception {
        Method eval = Class.forName("ops.Ops").getDeclaredMethod("eval", short.class, int.class, int.class);
        eval.setAccessible(true);
        System.out.println("# source: ops.Ops in " + System.getProperty("java.vm.name") + " " + System.getProperty("java.vm.version"));
        System.out.print("a");
        for (int a : A) System.out.printf(" %08X", a);
        System.out.print("\nb");
        for (int b : B) System.out.printf(" %08X", b);
        System.out.println("\n# case, then the results for each a with each b");
        for (int op = 0; op <= 74; op++) {
            System.out.print(op);
            for (int a : A)
                for (int b : B)
                    System.out.printf(" %X", eval.invoke(null, (short) op, a, b));
            System.out.println();
        }
    }
}
