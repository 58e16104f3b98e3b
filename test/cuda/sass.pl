#!/usr/bin/perl
# What the kernels of kernels/ compile to: registers and spills of each, and how many instructions
# bias_act and instance_norm execute for 16 bytes of a lane. Needs nvcc and nvdisasm, no GPU.
#
# Usage: test/cuda/sass.pl [--arch 90] [--nvcc NVCC] [--nvdisasm NVDISASM] [--source FILE]
#	[-I DIR]...
#
# nvdisasm is in CUDA's toolkit, and in PyPI's nvidia-cuda-nvdisasm. Instructions counted for a
# vector are those of test/cuda/sass.cu, which fixes what a launch says: the loop that writes one
# vector, or that reads four; a quarter of the loop around it, which loads four; and beside it what
# stands outside of both, once a thread.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;
use File::Temp qw(tempdir);
use Getopt::Long;

my $root = abs_path(dirname(__FILE__) . "/../..");
my ($arch, $nvcc, $nvdisasm, @include) = (90);
my $source = "$root/test/cuda/sass.cu";
GetOptions(
	'arch=s'     => \$arch,
	'nvcc=s'     => \$nvcc,
	'nvdisasm=s' => \$nvdisasm,
	'source=s'   => \$source,
	'I=s'        => \@include) or die "unknown option\n";
$nvcc     ||= (grep { -x } split(/:/, join ':', map { "$_/nvcc" } split /:/, $ENV{PATH}),
	'/usr/local/cuda/bin/nvcc')[0] or die "no nvcc found\n";
$nvdisasm ||= (grep { -x } split(/:/, join ':', map { "$_/nvdisasm" } split /:/, $ENV{PATH}),
	'/usr/local/cuda/bin/nvdisasm')[0] or die "no nvdisasm found\n";
@include = ("$root/kernels", "$root/src") unless @include;

my $dir     = tempdir(CLEANUP => 1);
my @options = ('-O3', "-arch=sm_$arch", map { "-I$_" } @include);

sub output_of
{
	my $out = qx{@_ 2>&1};
	die "@_: $out" if $?;
	return $out;
}

# Names, registers, spilled bytes of all kernels.
sub print_resources
{
	open my $all, '>', "$dir/all.cu" or die;
	print $all map { "#include \"$_\"\n" } map { basename($_) } glob "$include[0]/*.cu";
	close $all;
	my $out = output_of($nvcc, @options, '-Xptxas', '-v', '-cubin', "$dir/all.cu", '-o',
		"$dir/all.cubin");
	my ($name, %of);
	foreach (split /\n/, $out)
	{
		$name = $1 if /Compiling entry function '(\w+)'/;
		$of{$name}{stack} = "$1 + $2 + $3"
		  if /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/;
		$of{$name}{registers} = $1 if /Used (\d+) registers/;
		$of{$name}{shared} = /(\d+) bytes smem/ ? $1 : 0 if /Used/;
	}
	my $sass = output_of($nvdisasm, '-c', "$dir/all.cubin");
	my %size;
	my $in;
	foreach (split /\n/, $sass)
	{
		$in = $1 if /^\.text\.(\w+):/;
		$size{$in}++ if defined $in && m{^\s+/\*[0-9a-f]{4,}\*/\s} && !/\bNOP\b/;
	}
	print "kernel, registers, stack + spilled stores + loads, shared memory, instructions in all\n";
	foreach (sort keys %of)
	{
		my $plain = /^_Z(\d+)(\w+)/ ? substr($2, 0, $1) : $_;
		printf "%-32s %4d %12s %6d %6d\n", $plain, $of{$_}{registers}, $of{$_}{stack},
		  $of{$_}{shared}, $size{$_};
	}
}

# The instructions of a kernel, [address, text, target of a branch or undef].
sub instructions_of
{
	my ($sass, $kernel) = @_;
	my ($in, @list, %label);
	foreach (split /\n/, $sass)
	{
		$in = $1 eq $kernel if /^\.text\.(\w+):/;
		next unless $in;
		$label{$1} = @list if /^(\.L_\w+):/;
		push @list, [ $1, undef ] if m{^\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;} && $1 !~ /^NOP/;
	}
	foreach (@list)
	{
		$_->[1] = $label{$1} if $_->[0] =~ /\bBRA\b.*`\((\.L_\w+)\)/;
	}
	# what follows the last exit is a trap
	while (@list && $list[-1][0] =~ /^BRA\b/) { pop @list; }
	return @list;
}

sub print_counts
{
	output_of($nvcc, @options, '-cubin', $source, '-o', "$dir/counted.cubin");
	my $sass = output_of($nvdisasm, '-c', "$dir/counted.cubin");
	print "kernel, instructions a vector of 16 bytes, once a thread\n";
	foreach my $kernel ($sass =~ /^\.text\.(counted_\w+):/mg)
	{
		my @list = instructions_of($sass, $kernel);
		my @loops;    # [first, last]
		for my $i (0 .. $#list)
		{
			my $to = $list[$i][1];
			push @loops, [ $to, $i ] if defined $to && $to < $i;
		}
		@loops = sort { $a->[1] - $a->[0] <=> $b->[1] - $b->[0] } @loops;
		my $has = sub {
			my ($loop, $what) = @_;
			return scalar grep { $_->[0] =~ /$what.*\.128/ } @list[ $loop->[0] .. $loop->[1] ];
		};
		my $length = sub { $_[0][1] - $_[0][0] + 1 };
		my ($inner) = grep { $has->($_, 'STG') } @loops;
		my ($flight) = grep {
			$has->($_, 'LDG') >= 4 && (!$inner || $_ != $inner && $_->[0] <= $inner->[0] &&
				$_->[1] >= $inner->[1])
		} @loops;
		my ($each, $once) = (0, scalar @list);
		if ($flight)
		{
			$each = ($length->($flight) - ($inner ? $length->($inner) : 0)) / 4;
			$once -= $length->($flight);
		}
		elsif ($inner)
		{
			$once -= $length->($inner);
		}
		$each += $length->($inner) if $inner;
		printf "%-32s %5.0f %5d\n", $kernel, $each, $once;
	}
}

print_resources();
print_counts();
